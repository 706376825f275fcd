"""Frequency-decoupled guidance. Sadat et al. 2025, https://arxiv.org/abs/2506.19713"""

import torch.nn.functional as F

from .core import Step
from .schedule import at


def fdg(low=0.44, high=1.0):
    """Guide large shapes and colours less than details: a share of the guidance for each of two bands.

    low, high: the shares; 1 and 1 is plain CFG. A band with share s is guided at 1 + s * (scale - 1), so that the
        paper's 5 and 10 are scale 10 with low = 4 / 9. Numbers or Schedules.
    The bands are a two-level Laplacian pyramid along the last two dimensions (of sound, the last).
    """

    def apply(state):
        coarse, fine = at(low, state.moment), at(high, state.moment)
        if state.scale == 1 or (coarse, fine) == (1, 1):
            return state
        change = (fine - 1) * state.direction
        return state.bend(change if coarse == fine else change.add_(smooth(state.direction), alpha=coarse - fine))

    return Step(apply=apply)


def smooth(x):
    """The lower level of the pyramid, brought back to the size of x: blurred, halved, doubled and blurred."""
    height, width = x.shape[-2:] if x.ndim >= 4 else (1, x.shape[-1])
    planes = blur(x.reshape(-1, 1, height, width))
    planes = F.interpolate(planes, (max(1, height // 2), max(1, width // 2)), mode="bilinear")
    return blur(F.interpolate(planes, (height, width), mode="bilinear")).view(x.shape)


def blur(planes):
    """By 1 4 6 4 1 along both dimensions, reflected at the borders."""
    for dim, sides in ((-1, (2, 2, 0, 0)), (-2, (0, 0, 2, 2))):
        size = planes.shape[dim]
        if size == 1:
            continue
        wide = F.pad(planes, sides, mode="reflect" if size > 2 else "replicate")
        at_0, at_1, at_2, at_3, at_4 = (wide.narrow(dim, i, size) for i in range(5))
        planes = (at_0 + at_4).add_(at_1, alpha=4).add_(at_3, alpha=4).add_(at_2, alpha=6).div_(16)
    return planes
