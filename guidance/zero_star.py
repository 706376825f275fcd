"""CFG-Zero*. Fan et al. 2025, https://arxiv.org/abs/2503.18886"""

from dataclasses import replace

from . import ops
from .core import Step
from .schedule import at

PURE = 0.01  # a run that starts with less of a picture than this share in x starts from noise


def cfg_zero_star(strength=1.0, zero_steps=0):
    """Guide from the multiple of uncond's velocity that is nearest to cond's, and stand still at first.

    strength: how far to go to that multiple; 0 is plain CFG. A number or a Schedule. Leaving out what is parallel to
        uncond is the same: cond - s * uncond, for the nearest s, is the direction orthogonal to uncond.
    zero_steps: for this many steps a flow model's velocity is taken to be 0, which leaves x as it is. The first
        velocity of such a model, from pure noise, is its worst. Other models have no such velocity, and a run that
        starts from a picture would fade it, so there this is ignored.
    """

    def still(moment):
        return moment.step < zero_steps and moment.space.alpha(moment.timeline.sigmas[0]) < PURE

    def limits(moment):
        return moment.unguided() if still(moment) else moment  # uncond would not be used

    def apply(state):
        if still(state.moment):
            return replace(state, denoised=state.x)
        amount = at(strength, state.moment)
        if state.scale == 1 or amount == 0:
            return state
        # x - x0 is sigma times the velocity (the noise in an eps model), and a projection ignores the length.
        velocity = state.x - state.uncond
        return state.bend(velocity.mul_(-amount * ops.share(state.direction, velocity)))

    return Step(limits=limits, apply=apply)
