"""Perp-CFG: the projected family of Sadat et al. 2024 (APG, https://arxiv.org/abs/2410.02416) and Fan et al. 2025
(CFG-Zero*, https://arxiv.org/abs/2503.18886), which differ only in what the direction is projected on."""

from . import ops
from .core import UNCOND, Step
from .schedule import at


def perp_cfg(eta=0.0, reference="uncond", space="x0", literal=False):
    """Keep of the direction what is orthogonal to a reference prediction, and eta of what is parallel to it.

    eta: 1 is plain CFG, 0 drops the parallel part. A number or a Schedule.
    reference: "uncond" or "cond". With space "noise" (noise, or velocity in a flow model) and "uncond" this is the
        optimised scale of CFG-Zero*; with space "x0" and "cond" the projection of APG.
    literal: start from uncond, u + scale * direction, instead of from cond, c + (scale - 1) * direction. Then
        scale 1 is no longer pure cond, and uncond is always computed.
    """

    def asks(moment):
        return moment.ask(UNCOND) if literal and at(eta, moment) != 1 else moment

    def apply(state):
        kept = at(eta, state.moment)
        if kept == 1 or (state.scale == 1 and not literal):
            return state
        onto = state.cond if reference == "cond" else state.uncond
        if space == "noise":  # x - x0 is sigma times the noise or velocity, and a projection ignores the length
            onto = state.x - onto
        return state.bend((kept - 1) * ops.share(state.direction, onto) * onto, state.scale if literal else None)

    return Step(asks, apply)
