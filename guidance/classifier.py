"""Classifier guidance. Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233; at x0, without a classifier that
knows noise: He et al. 2023 (MPGD), https://arxiv.org/abs/2311.16424"""

import torch

from .core import Step
from .schedule import at


def classifier(log_likelihood, scale=1.0, where="x0"):
    """Towards what a classifier recognises: + scale * variance * gradient of its log-likelihood.

    log_likelihood: (latents (B, ...), sigma) -> (B,), log p(y | latent) for each sample by itself.
    scale: 1 is Bayes' rule where the method is exact, 0 is off. A number or a Schedule.
    where: "x" for a classifier of noisy latents, as in the paper: exact, with sigma^2 / alpha before the gradient.
        "x0" for one of clean latents: its gradient at the answer so far, which needs no gradient of the model. Before
        it stands the variance of x0 given x for data of variance 1, sigma^2 / (sigma^2 + alpha^2): exact for Gaussian
        data and a linear log-likelihood, else an approximation that holds better the less noise there is.
    """

    def apply(state):
        strength = at(scale, state.moment)
        if strength == 0:
            return state
        sigma, alpha = state.moment.sigma, state.moment.space.alpha(state.moment.sigma)
        if where == "x":
            # At alpha 0, a flow model's very first step, x says nothing about x0, nor can a classifier of it.
            return state if alpha == 0 else state.add(
                strength * sigma**2 / alpha * gradient(log_likelihood, state.x, sigma))
        variance = sigma**2 / (sigma**2 + alpha**2)
        return state.add(strength * variance * gradient(log_likelihood, state.denoised, sigma))

    return Step(apply=apply)


def gradient(log_likelihood, latents, sigma):
    """Of each sample's log-likelihood with respect to that sample. Nothing outside keeps a graph."""
    # Networks that were not made for it edit tensors in place which their own gradient needs; here they may.
    with torch.inference_mode(False), torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
        latents = latents.detach().clone().requires_grad_()
        return torch.autograd.grad(log_likelihood(latents, sigma).sum(), latents)[0]
