"""Power-law CFG. Pavasovic et al. 2025, https://arxiv.org/abs/2502.07849"""

from . import ops
from .core import Step
from .schedule import at

MOST = 1e3  # times the scale; more is no picture, and in the end no number


def power_law(alpha=0.9, reference=0.1):
    """Guide more where the two predictions differ much, less where they differ little.

    cond + (scale - 1) * direction * (size / reference) ** alpha for each sample, where size is the root mean square of
    the difference of the network outputs. The paper has the norm of a difference of scores, which grows with the picture.
    alpha: 0 is plain CFG. A number or a Schedule.
    reference: the size at which the scale stays what it is.
    """

    def apply(state):
        power = at(alpha, state.moment)
        if state.scale == 1 or power == 0:
            return state
        _, gain = state.moment.space.parts(state.moment.sigma)
        if gain == 0:  # without noise x is x0, whatever the network puts out
            return state
        direction = state.direction
        size = ops.rms(direction) / abs(gain)
        return state.bend((((size / reference) ** power).clamp_max(MOST) - 1) * direction)

    return Step(apply=apply)
