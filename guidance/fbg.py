"""Feedback guidance (FBG). Koulischer et al. 2025, https://arxiv.org/abs/2506.06085"""

from math import inf, log
from typing import NamedTuple

from torch import Tensor

from . import ops
from .core import UNCOND, Step
from .interval import ALWAYS
from .memory import Memory
from .schedule import at

HIGHEST = 3.0  # of log p


def fbg(pi=0.999, t0=0.556, t1=0.429, largest=10.0, window=ALWAYS):
    """Guide each picture as long as it does not show the prompt: + (lambda - 1) * direction with lambda =
    p / (p - (1 - pi)), where p is how much more likely its path so far is with the prompt than without.

    pi: how much of the model's prediction is right about the prompt. 1 is off.
    t0: of the run, counted from its end: when lambda is 3 if nothing is learnt from the path. t1: where what is learnt
        is to weigh ten times as much as that drift.
    largest: the scale that lambda may make of the sampler's, with which it adds up; at scale 1 this is the paper's
        method, above it the paper's mixture with CFG. Not above the sampler's is off. A number or a Schedule.
    """
    memory = Memory()

    def on(moment):
        return pi < 1 and at(largest, moment) > moment.scale and moment.sigma > 0 and window.holds(moment)

    def asks(moment):
        return moment.ask(UNCOND) if on(moment) else moment

    def apply(state):
        moment = state.moment
        if not on(moment) or moment.skips:
            memory.keep(moment, None)
            return state
        between = moment.step % 1 != 0 and memory.kept(moment)  # of two steps: the path is not there yet
        if between:
            logs = between.logs
        else:
            top = at(largest, moment) - state.scale + 1
            least = log((1 - pi) * top / (top - 1))
            logs = learnt(state, memory.recall(moment)).clamp(min=least, max=max(least, HIGHEST))
            memory.keep(moment, expected(state, logs, *pace(moment.timeline, pi, t0, t1)))
        p = logs.exp()
        return state.add((p / (p - (1 - pi)) - 1) * state.direction)

    return Step(asks, apply)


class Expected(NamedTuple):
    """What a step leaves for the next: its log p of each sample, where a random step would lead to with the prompt
    (mean), how far that is from where it would without (apart), its variance, and the pace of learning."""

    logs: Tensor
    mean: Tensor
    apart: Tensor
    variance: float
    temperature: float
    drift: float


def level(space, sigma):
    """The noise on a signal of size 1."""
    signal = space.alpha(sigma)
    return sigma / signal if signal else inf


def narrowing(space, sigma, sigma_next):
    """(noise level after a step, its share of the one before, variance of a random step there)"""
    before, after = level(space, sigma), level(space, sigma_next)
    if before == 0 or after == inf:  # of a run that adds noise
        return 0.0, 1.0, 0.0
    share = after / before
    return after, share, (1 - share**2) * after**2


def pace(line, pi, t0, t1):
    """The paper's tau and delta."""
    steps = len(line.sigmas) - 1
    drift = log(1.5 * (1 - pi)) / ((1 - t0) * steps)
    last = steps - 1 - int(t1 * steps)
    variances = [narrowing(line.space, *line.sigmas[i:i + 2])[2] for i in (max(last, 0), max(last - 1, 0))]
    variance = variances[0] + (t1 * steps % 1) * (variances[1] - variances[0])
    return abs(variance / 5 * drift), drift


def expected(state, logs, temperature, drift):
    moment = state.moment
    after, share, variance = narrowing(moment.space, moment.sigma, moment.sigma_next)
    mean = ((1 - share**2) * state.cond).add_(state.x, alpha=share * after / moment.sigma)
    return Expected(logs, mean, (1 - share**2) * (state.cond - state.uncond), variance, temperature, drift)


def learnt(state, before):
    """The log p of each sample, now that it is known where the step before has led to."""
    signal = state.moment.space.alpha(state.moment.sigma)
    if before is None or signal == 0 or before.variance <= 0:
        return state.x.new_zeros(len(state.x), *[1] * (state.x.ndim - 1)) if before is None else before.logs
    missed = (state.x / signal).sub_(before.mean).mul_(2).add_(before.apart)
    return before.logs + before.temperature / (2 * before.variance) * ops.dot(missed, before.apart) + before.drift
