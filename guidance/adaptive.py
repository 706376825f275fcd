"""Adaptive guidance. Castillo et al. 2023, https://arxiv.org/abs/2312.12487"""

from dataclasses import replace

import torch

from . import ops
from .core import Step
from .schedule import at


def adaptive(measure="norm", threshold=0.02, arm=1.0):
    """Guide until cond and uncond agree, then no more: from there on uncond is not computed.

    measure: "norm", the length of cond - uncond in units of cond's; or "cosine", the paper's, 1 minus the similarity
        of the two noise (or velocity) predictions: a similarity of 0.99 is a threshold of 0.01.
    threshold: agreed is what measures less. 0 never stops. A number or a Schedule.
    arm: with "cosine", the sigma from which on it counts: at high noise both predictions are the noise, so alike.

    Each sample stops on its own, and a sample that has stopped is cond alone; rows are saved once all have. How many
    have is read from the device at the next plan, beside sigma, for which the device has been waited already.
    """
    stopped: torch.Tensor | None = None  # (B, 1, ...) of bool after the evaluations so far
    count = 0  # and how many were true at the plan

    def limits(moment):
        nonlocal count
        if stopped is None:
            return moment
        count = int(stopped.sum())
        return moment.unguided() if count == len(stopped) else moment

    def apply(state):
        nonlocal stopped
        limit = at(threshold, state.moment)
        if state.scale == 1 or (limit == 0 and stopped is None):
            return state
        agreed = distance(state, measure) < limit
        if measure == "cosine" and state.moment.sigma > arm:
            agreed = torch.zeros_like(agreed)
        # Predictions without any difference are one: uncond was out of its range, and may come back.
        agreed = agreed & (ops.norm(state.cond - state.uncond) > 0)
        before, stopped = stopped, agreed if stopped is None else agreed | stopped
        return without_uncond(state, before) if count else state

    return Step(limits=limits, apply=apply)


def distance(state, measure):
    """How much cond and uncond differ, for each sample."""
    if measure == "norm":
        return ops.norm(state.cond - state.uncond) / ops.norm(state.cond)  # inf or NaN, which never agree, for cond 0
    a, b = state.x - state.cond, state.x - state.uncond
    return 1 - ops.ratio(ops.dot(a, b), ops.norm(a) * ops.norm(b))


def without_uncond(state, samples):
    """The state in which, for some samples, nobody computed uncond."""
    given_up = torch.where(samples, state.direction, 0)
    uncond = torch.where(samples, state.cond, state.uncond)
    return replace(state.add((1 - state.scale) * given_up), uncond=uncond, steered=state.direction - given_up)
