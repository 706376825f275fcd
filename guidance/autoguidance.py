"""Autoguidance. Karras et al. 2024, https://arxiv.org/abs/2406.02507"""

from dataclasses import replace

from .core import Step, Weak
from .schedule import at


def autoguidance(key, share=1.0):
    """Away from a worse version of the model, given the same prompt: weak + scale * (cond - weak).

    key: what the host knows the weak model by.
    share: of guidance that comes from the weak model; the rest is CFG's. 1 computes no uncond, 0 no weak prediction.
        A number or a Schedule.
    """
    weak = Weak(key)

    def asks(moment):
        part = at(share, moment)
        if part == 0 or moment.scale == 1:
            return moment
        return replace(moment.ask(weak), skip=moment.skip or part == 1)

    def grounds(state):
        part = at(share, state.moment)
        if part == 0 or weak not in state.branches:
            return state
        direction = state.cond - state.branches[weak]
        return state.redirect(direction if part == 1 else part * direction + (1 - part) * state.direction)

    return Step(asks, grounds=grounds)
