"""Normalized attention guidance. Chen, Bandyopadhyay, Zou and Song 2025, https://arxiv.org/abs/2505.21179"""

from dataclasses import replace

import torch

from .core import Step
from .interval import ALWAYS
from .schedule import at

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


def attention_away(key, scale=4.0, tau=2.5, alpha=0.25, window=ALWAYS):
    """The prompt's attention away from a negative's, inside the prompt's own row.

    key: what the host knows the negative by. scale, tau, alpha: see `nag`; numbers or Schedules.
    """

    def asks(moment):
        strength, limit, share = (at(knob, moment) for knob in (scale, tau, alpha))
        if strength == 0 or share == 0 or not window.holds(moment):
            return moment
        return replace(moment, beside=replace(moment.beside, negative=key, scale=strength, tau=limit, alpha=share))

    return Step(asks)
