"""Skimmed CFG. Extraltodeus 2024, https://github.com/Extraltodeus/Skimmed_CFG"""

from torch import where

from .core import Step
from .schedule import at


def skimmed_cfg(skim=7.0, full_negative=False, flips=True):
    """Guide at a smaller scale those values which the scale in force drives away from zero.

    skim: the smaller scale. The scale in force, or more, is plain CFG. A number or a Schedule.
    full_negative: for values that uncond drives away, not a smaller scale but none.
    flips: only values that the answer moves on in the direction in which they already lie from x.
    """

    def driven(x, near, far, scale):
        """Where near leans away from far and from zero, and the answer far + scale * (near - far) goes on that way."""
        lean = near - far
        answer = far.add(lean, alpha=scale)
        up, down = (lean > 0) & (near > 0) & (answer > 0), (lean < 0) & (near < 0) & (answer < 0)
        return (up & (answer > x)) | (down & (answer < x)) if flips else up | down

    def apply(state):
        scale, small = state.scale, at(skim, state.moment)
        if scale == 1 or (small >= scale and not full_negative):
            return state
        small = min(small, scale)
        cond, direction = state.cond, state.direction
        uncond = cond - direction
        share = 0.0 if full_negative else small / scale
        direction = where(driven(state.x, uncond, cond, scale), share * direction, direction)
        share = (small - 1) / (scale - 1)
        direction = where(driven(state.x, cond, cond - direction, scale), share * direction, direction)
        return state.steer(direction)

    return Step(apply=apply)
