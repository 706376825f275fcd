"""Mimic thresholding. mcmonkey & Birch-san 2023, https://github.com/mcmonkeyprojects/sd-dynamic-thresholding"""

from dataclasses import replace

from einops import rearrange

from . import ops
from .core import Step
from .schedule import at


def mimic(mimic_scale=7.0, percentile=1.0, per_channel=True, start="mean", measure="range", strength=1.0):
    """Guide at the scale in force, with the range of values that a smaller scale would have given.

    mimic_scale: that smaller scale. A number or a Schedule; the scale in force is plain CFG.
    percentile: the share of values that is not clipped.
    per_channel: each channel gets its own range, or all channels one.
    start: values move towards their channel's "mean", or towards "zero".
    measure: compare the largest distance from the mean ("range"), or the "std".
    strength: 0 is off. A number or a Schedule.
    """

    def apply(state):
        amount, small = at(strength, state.moment), at(mimic_scale, state.moment)
        if amount == 0 or state.scale == 1 or small == state.scale:
            return state
        calm = state.denoised + (small - state.scale) * state.direction
        layout = "b c ... -> (b c) 1 (...)" if per_channel else "b c ... -> b c (...)"
        calm, answer = rearrange(calm, layout), rearrange(state.denoised, layout)
        middle = answer.mean(dim=-1, keepdim=True)
        spread, calm = answer - middle, calm - calm.mean(dim=-1, keepdim=True)
        if measure == "std":
            want, have = ops.std(calm), ops.std(spread)
        else:
            want, have = ops.quantile(calm.abs(), 1.0), ops.quantile(spread.abs(), percentile)
        if start == "zero":
            limited = answer * ops.match(want, have)
        elif measure == "std":
            limited = spread * ops.match(want, have) + middle
        else:
            limit = have.maximum(want)
            limited = spread.clamp(-limit, limit) * ops.match(want, limit) + middle
        return replace(state, denoised=state.denoised.lerp(limited.view_as(state.denoised), amount))

    return Step(apply=apply)
