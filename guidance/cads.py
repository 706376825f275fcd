"""Condition-annealed sampling (CADS). Sadat et al. 2023, https://arxiv.org/abs/2310.17347"""

from dataclasses import replace

import torch

from . import ops
from .core import Step
from .schedule import at


def cads(noise=0.1, start=0.6, full=0.9, restore=1.0, seed=0):
    """Noise on the prompt while the picture takes shape, so that one prompt makes different pictures.

    noise: its standard deviation, in units of the embedding's own. 0 is off. A number or a Schedule. The paper's is
        absolute, for embeddings of deviation 1; those of text encoders range from 0.1 to 10.
    start, full: at this much remaining time (1 at the first step, 0 at the last) and below the prompt is left alone,
        and at this much and above only noise is left of it; the paper's tau1 and tau2.
    restore: how far to bring mean and deviation of the embedding back to what they were, 0 to 1; the paper's psi.
    seed: with the step it decides the noise, which every sample of a batch has of its own.
    """

    def asks(moment):
        kept = remaining(1 - moment.percent, start, full)
        strength, before = at(noise, moment), moment.embed
        if kept == 1 or strength == 0:
            return moment

        def embed(y):
            y = y if before is None else before(y)
            return anneal(y, kept, strength, restore, drawn(y, seed, moment))

        return replace(moment, embed=embed)

    return Step(asks)


def remaining(time, start, full):
    """How much of the prompt is left at a time: the paper's gamma."""
    return 1.0 if time <= start else max(0.0, (full - time) / (full - start)) if full > start else 0.0


def anneal(y, kept, strength, restore, noise):
    """The embedding y (B, tokens, width) with `kept` of its variance, and noise for the rest."""
    mixed = kept**0.5 * y + strength * (1 - kept) ** 0.5 * ops.std(y) * noise
    if restore == 0:
        return mixed
    centred = mixed - mean(mixed)
    restored = ops.ratio(centred, ops.std(mixed)) * ops.std(y) + mean(y)
    return restore * restored + (1 - restore) * mixed


def mean(y):
    return y.flatten(1).mean(1).view(-1, *[1] * (y.ndim - 1))


def drawn(y, seed, moment):
    """Normal noise like y. Drawn on the CPU and sample by sample: the same on every device and in every batch."""
    samples = []
    for i in range(len(y)):
        place = (seed * 1_000_003 + i) * 1_000_003 + int(1000 * moment.step)
        generator = torch.Generator().manual_seed(place % 2**63)
        samples.append(torch.randn(y.shape[1:], generator=generator))
    return torch.stack(samples).to(y)
