"""Compress Guidance. Dinh, Liu, Xu 2024, https://arxiv.org/abs/2408.11194"""

from dataclasses import replace

from torch import Tensor

from .core import Step
from .schedule import at


def compress(share=0.6, power=1.0, reuse=1.0):
    """Compute uncond at a share of the steps, and between them go on in the last direction that was found.

    share: of the run's steps, those that compute uncond; 1 is all. The first step that is guided always does, and
        so does the first after a pause of guidance.
    power: how they are spread. 1 is evenly; above 1 they crowd at the start, where the picture is decided.
    reuse: how much of the last direction to use between them. 0 is cond alone, as in the authors' code for CFG.
        A number or a Schedule.
    """
    found = False  # whether a direction was found, or is to be by the evaluation that is planned
    last: Tensor | None = None

    def asks(moment):
        nonlocal found
        if moment.scale == 1:
            found = False
            return moment
        instead = {branch for branch in moment.asked if branch.instead}
        if moment.skips and not instead:
            return moment
        steps = len(moment.timeline.sigmas) - 1
        reused = found and int(moment.step) not in guided_steps(steps, share, power)
        found = True
        return replace(moment, skip=True, asked=moment.asked - instead) if reused else moment

    def apply(state):
        nonlocal found, last
        if share == 1:
            return state
        if state.moment.scale == 1:
            last = None
            return state
        if not state.moment.skips:
            last = state.direction
            return state
        found = last is not None
        kept = at(reuse, state.moment)
        return state.redirect(kept * last) if last is not None and kept != 0 else state

    return Step(asks, apply)


def guided_steps(steps, share, power):
    """The steps that compute uncond: share * steps of them, or fewer where a high power lets some coincide."""
    count = max(1, round(share * steps))
    return {int(steps * (i / count) ** power + 1e-9) for i in range(count)}
