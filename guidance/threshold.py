"""Dynamic thresholding. Saharia et al. 2022 (Imagen), https://arxiv.org/abs/2205.11487"""

from dataclasses import replace

import torch

from . import ops
from .core import Step
from .schedule import at


def dynamic_threshold(percentile=0.995, form="latents", strength=1.0):
    """Clip the few largest values of the answer, then shrink all of it back into range.

    percentile: the share of values that is not clipped; 1 only shrinks.
    form: "pixels" is the paper's, for models of pixels in [-1, 1]. Latents know no such bound (a percentile of 2.8 is
        normal), so "latents" takes cond's percentile for it, and leaves a sample alone whose own is no larger.
    strength: 0 is off. A number or a Schedule.
    """

    def apply(state):
        amount, answer = at(strength, state.moment), state.denoised
        if amount == 0 or (state.is_cond and form == "latents"):
            return state
        size = ops.quantile(answer.abs(), percentile)
        if form == "pixels":
            limited = (answer / size.clamp(min=1)).clamp(-1, 1)
        else:
            usual = ops.quantile(state.cond.abs(), percentile)
            limited = answer.clamp(-size, size) * ops.match(usual, size)
            limited = torch.where(size > usual, limited, answer)
        return replace(state, denoised=answer.lerp(limited, amount))

    return Step(apply=apply)
