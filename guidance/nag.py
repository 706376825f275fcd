"""Normalized attention guidance. Chen, Bandyopadhyay, Zou and Song 2025, https://arxiv.org/abs/2505.21179"""

import torch

TINY = torch.finfo(torch.float32).tiny


def nag(positive, negative, scale=4.0, tau=2.5, alpha=0.25, features=(-1,)):
    """Push what attention answers for the prompt away from what it answers for the negative prompt.

        g = z+ + scale (z+ - z-), no longer than tau times z+ (L1 norm of each token); alpha g + (1 - alpha) z+

    positive, negative: attention's two answers to the same queries, of one shape. scale: 0 is off; the paper's own
    scale and that of most packs is this plus 1. tau: > 0. alpha: 0 is off, 1 takes g as it is. features: the dimensions
    that make up one token, all its heads together.
    """
    if scale == 0 or alpha == 0:
        return positive
    plus, minus = positive.float(), negative.float()
    guided = torch.lerp(minus, plus, 1 + scale)
    limit = tau * torch.sum(plus.abs(), features, keepdim=True)
    length = torch.sum(guided.abs(), features, keepdim=True)
    guided = guided * (limit / length.clamp_min(TINY)).clamp_max(1)
    return torch.lerp(plus, guided, alpha).to(positive.dtype)
