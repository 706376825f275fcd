"""Adaptive projected guidance. Sadat et al. 2024, https://arxiv.org/abs/2410.02416"""

from . import ops
from .core import Step
from .memory import Memory
from .schedule import at


def apg(eta=0.0, threshold=0.06, unit="rms", momentum=-0.5):
    """Brake the direction by its past, limit its length, and drop what only makes cond stronger.

    eta: how much to keep of the part parallel to cond. 1 keeps all.
    threshold: the largest norm of the direction; 0 is no limit. In "rms" units (the norm over the root of the number
        of elements) one value serves all sizes; unit "norm" is the paper's.
    momentum: how much of the last step's direction to add; negative brakes, 0 is off.
    All three: a number or a Schedule. The projection is of x0, over the whole sample.
    """
    memory = Memory()

    def apply(state):
        kept, radius, inertia = (at(knob, state.moment) for knob in (eta, threshold, momentum))
        if state.scale == 1 or inertia == 0:
            memory.keep(state.moment, None)
        if state.scale == 1 or (kept, radius, inertia) == (1, 0, 0):
            return state
        direction = state.direction
        if inertia != 0:
            before = memory.recall(state.moment)
            if before is not None:
                direction = direction.add(before, alpha=inertia)
            memory.keep(state.moment, direction)
        if radius != 0:
            length = ops.rms(direction) if unit == "rms" else ops.norm(direction)
            direction = direction * (radius / length).clamp(max=1)
        if kept != 1:
            direction = direction.addcmul((kept - 1) * ops.share(direction, state.cond), state.cond)
        return state.steer(direction)

    return Step(apply=apply)
