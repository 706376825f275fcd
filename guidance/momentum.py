"""Momentum guidance. Liao et al. 2026, https://arxiv.org/abs/2602.20360"""

from .core import Step
from .memory import Memory
from .schedule import at


def momentum_guidance(alpha=0.5, beta=0.6):
    """Away from where the run came from: velocity + alpha * (velocity - its average over the steps before).

    alpha: 0 is off. A number or a Schedule.
    beta: how much of the average stays at each step.
    Needs no uncond, so it works at scale 1. The velocity is (x - x0) / sigma, the noise in an eps model.
    """
    memory = Memory()

    def apply(state):
        strength, sigma = at(alpha, state.moment), state.moment.sigma
        if strength == 0 or sigma == 0:  # without noise x is x0, and there is no velocity to tell
            memory.keep(state.moment, None)
            return state
        velocity = (state.x - state.denoised) / sigma
        average = memory.recall(state.moment)
        memory.keep(state.moment, velocity if average is None else velocity.lerp(average, beta))
        return state if average is None else state.add(velocity - average, -strength * sigma)

    return Step(apply=apply)
