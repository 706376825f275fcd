"""Compress Guidance. Dinh, Liu, Xu 2024, https://arxiv.org/abs/2408.11194"""

from dataclasses import replace

from .core import Step
from .schedule import at


def compress(share=0.6, power=1.0, reuse=1.0):
    """Compute uncond at a share of the steps, and between them go on in the last direction that was found.

    share: of the run's steps, those that compute uncond; 1 is all. The first step always does.
    power: how they are spread. 1 is evenly; above 1 they crowd at the start, where the picture is decided.
    reuse: how much of the last direction to use between them. 0 is cond alone, as in the authors' code for CFG.
        A number or a Schedule.
    """
    last = None

    def plan(moment):
        steps = len(moment.timeline.sigmas) - 1
        return moment if int(moment.step) in guided_steps(steps, share, power) else replace(moment, skip=True)

    def apply(state):
        nonlocal last
        if share == 1:
            return state
        if not state.moment.skips:
            last = state.direction
            return state
        kept = at(reuse, state.moment)
        return state if last is None or kept == 0 else state.redirect(kept * last)

    return Step(plan, apply)


def guided_steps(steps, share, power):
    """The steps that compute uncond: share * steps of them, or fewer where a high power lets some coincide."""
    count = max(1, round(share * steps))
    return {int(steps * (i / count) ** power + 1e-9) for i in range(count)}
