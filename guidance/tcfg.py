"""Tangential damping CFG. Kwon et al. 2025, https://arxiv.org/abs/2503.18137"""

import torch

from . import ops
from .core import Step
from .schedule import at


def tcfg(strength=1.0):
    """Keep of uncond only what lies along the direction that it and cond mostly share.

    That direction is the first singular vector of the two noise predictions (velocities in a flow model), p * uncond
    + q * cond with p = cos t, q = sin t, tan 2t = 2 <uncond, cond> / (|uncond|^2 - |cond|^2): no SVD is needed.
    strength: 0 is plain CFG. A number or a Schedule.
    """

    def apply(state):
        amount = at(strength, state.moment)
        if state.scale == 1 or amount == 0:
            return state
        direction, cond = state.direction, state.x - state.cond  # sigma times the noise; uncond is cond + direction
        cond_cond, cond_dir, dir_dir = ops.dot(cond, cond), ops.dot(cond, direction), ops.dot(direction, direction)
        # Of the 2 x 2 Gram matrix: twice its mixed entry, and the difference of its diagonal, without cancellation.
        mixed, uneven = 2 * (cond_cond + cond_dir), 2 * cond_dir + dir_dir
        size = torch.hypot(mixed, uneven)
        cos, sin = torch.where(size == 0, 1, uneven / size), ops.ratio(mixed, size)
        # p * (p * uncond + q * cond) - uncond, in terms of direction and cond.
        change = cond.mul_((cos + sin - 1) / 2).addcmul_((cos - 1) / 2, direction)
        return state.bend(change.mul_(amount))

    return Step(apply=apply)
