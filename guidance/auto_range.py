"""Automatic CFG. Extraltodeus 2024, https://github.com/Extraltodeus/ComfyUI-AutomaticCFG"""

import torch

from . import ops
from .core import Step
from .schedule import at

MOST = 2


def auto_range(reference=8.0, strength=1.0):
    """Guide each channel of each sample at the scale that gives it the range of values which the scale asks for.

    The range of a channel, when guided at the reference scale, is the mean size of its top and its bottom quarter of
    values; its scale is then reference * (scale / 10) / range, but at most MOST times the larger of scale and
    reference: a channel that is nearly flat would get hundreds.
    reference: the scale at which ranges are measured.
    strength: 0 is off. A number or a Schedule.
    """

    def apply(state):
        amount = at(strength, state.moment)
        if state.scale == 1 or amount == 0:
            return state
        direction = state.direction
        values = (state.cond + (reference - 1) * direction).flatten(2)
        quarter = max(1, values.shape[-1] // 4)
        values = ops.parted(values, quarter - 1, values.shape[-1] - quarter)
        extent = (values[..., -quarter:].mean(dim=-1) + values[..., :quarter].abs().mean(dim=-1)) / 2
        most = MOST * max(abs(state.scale), reference)
        scale = torch.where(extent == 0, state.scale, (reference * state.scale / 10 / extent).clamp(-most, most))
        change = amount * (scale - state.scale) / (state.scale - 1)
        return state.bend(change.view(*change.shape, *[1] * (direction.ndim - 2)) * direction)

    return Step(apply=apply)
