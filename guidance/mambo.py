"""MAMBO-G, first named RAAG: magnitude-aware guidance. Zhu et al. 2025, https://arxiv.org/abs/2508.03442"""

import torch

from . import ops
from .core import Step
from .schedule import at


def mambo_g(alpha=8.0):
    """Guide less where guidance is large beside uncond, as it is in the first steps.

    alpha: the scale becomes 1 + (scale - 1) * exp(-alpha * |direction| / |uncond|), each sample its own, with norms
        of network outputs. 0 is plain CFG. A number or a Schedule.
    """

    def apply(state):
        steepness = at(alpha, state.moment)
        if state.scale == 1 or steepness == 0:
            return state
        skip, _ = state.moment.space.parts(state.moment.sigma)
        uncond = torch.sub(state.uncond, state.x, alpha=skip)  # the network output, but for a factor that cancels
        direction = state.direction
        share = ops.norm(direction) / ops.norm(uncond).clamp(min=torch.finfo(uncond.dtype).tiny)
        return state.bend(torch.expm1(-steepness * share) * direction)

    return Step(apply=apply)
