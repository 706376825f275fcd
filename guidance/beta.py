"""beta-CFG. Malarz et al. 2025, https://arxiv.org/abs/2502.10574"""

from math import exp, lgamma

from . import ops
from .core import Step
from .schedule import at

REFERENCE = 1 / 128  # of a 4 x 64 x 64 latent, the paper's, this is the root mean square when the norm is 1


def beta_cfg(a=2.0, b=3.0, gamma=1.0):
    """Guide most in the middle of the run, by a push of given length: u + scale * beta(t) * direction / norm^gamma.

    a, b: the beta distribution over the steps. 1 and 1 is flat; above 1, the first and the last step are uncond.
    gamma: 0 keeps the direction's length, 1 makes it a constant. A number or a Schedule. The norm is that of the
        network outputs' difference on a 4 x 64 x 64 latent, whatever the size.
    """

    def limits(moment):
        if moment.scale == 1 or (a == b == 1 and at(gamma, moment) == 0):
            return moment
        return moment.at_scale(moment.scale * density(moment))

    def density(moment):
        t = min(1.0, moment.step / max(1, len(moment.timeline.sigmas) - 2))
        return t ** (a - 1) * (1 - t) ** (b - 1) * exp(lgamma(a + b) - lgamma(a) - lgamma(b))

    def apply(state):
        power = at(gamma, state.moment)
        if state.scale == 1 or power == 0:
            return state
        _, gain = state.moment.space.parts(state.moment.sigma)
        if gain == 0:  # without noise x is x0, whatever the network puts out
            return state
        direction = state.direction
        size = ops.rms(direction) / abs(gain)
        change = (ops.ratio(REFERENCE**power, size**power) - 1) * direction
        return state.bend(change, weight=state.scale)  # from uncond, as the paper has it, not from cond

    return Step(limits=limits, apply=apply)
