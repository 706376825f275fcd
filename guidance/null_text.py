"""Null-text inversion. Mokady et al. 2022, https://arxiv.org/abs/2211.09794

CFG leads away from the noise that a picture came from. A null of each step's own, learnt for this picture, leads back to it;
with another prompt it leads to the same picture but for what the prompts differ in.
"""

from math import inf

import torch

ENOUGH = 1e-5  # mean squared error of a step, in latents of variance 1, below which there is nothing more to learn
REFINED = 4  # times


def null_text(latent, sigmas, cond, uncond, null, scale, iterations=10, rate=0.01):
    """(noisy latent, nulls, latent): where to start, what stands for no prompt at each step, and where Euler steps arrive
    with them at this scale.

    latent: the clean one (B, ...), fp32. sigmas: falling noise levels, to be sampled at. cond: (x, sigma) -> x0 with the
    prompt. uncond: (x, sigma, null) -> x0 without it, differentiable in the null. null: what to begin with (B, ...), of
    about unit scale; each step begins with that of the step before it. rate: Adam's.
    """
    path = invert(latent, sigmas, cond)
    x, nulls = path[0], []
    for sigma, below, wanted in zip(sigmas, sigmas[1:], path[1:]):
        prompt, start, kept = cond(x, sigma), x, below / sigma

        def arrive(null, prompt=prompt, start=start, kept=kept, sigma=sigma):
            without = uncond(start, sigma, null)
            return kept * start + (1 - kept) * (without + scale * (prompt - without))

        null, x = learnt(null, arrive, wanted, iterations, rate)
        nulls.append(null)
    return path[0], nulls, x


def invert(latent, sigmas, cond):
    """The way back into the noise: a latent for each of sigmas, from which Euler steps with the prompt alone lead to the one
    that is given. DDIM inversion reads the noise of a level from the latent below it, which is a first guess here; each
    refinement reads it from the guess (Pan et al. 2023, https://arxiv.org/abs/2309.04907)."""
    path = [latent]
    for sigma, below in reversed(list(zip(sigmas, sigmas[1:]))):
        x = path[0]
        for _ in range(1 + REFINED):
            x = path[0] + (1 - below / sigma) * (x - cond(x, sigma))
        path.insert(0, x)
    return path


def learnt(null, arrive, wanted, iterations, rate):
    """(null, where it arrives): the best of all tried, for each sample by itself. arrive: differentiable in the null."""
    tried, best, there, least = null.clone().requires_grad_(), null, wanted, wanted.new_full((len(wanted),), inf)
    optimizer = torch.optim.Adam([tried], rate)
    for i in range(iterations + 1):
        with torch.enable_grad():
            reached = arrive(tried)
            error = (reached - wanted).square().flatten(1).mean(1)
        better = error.detach() < least
        best, there = _where(better, tried.detach(), best), _where(better, reached.detach(), there)
        least = torch.minimum(error.detach(), least)
        if i == iterations or float(least.max()) < ENOUGH:
            break
        tried.grad, = torch.autograd.grad(error, tried, torch.ones_like(error))
        optimizer.step()
    return best, there


def _where(samples, value, other):
    return torch.where(samples.view(-1, *[1] * (value.ndim - 1)), value, other)
