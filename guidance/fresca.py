"""FreSca. Huang et al. 2025, https://arxiv.org/abs/2504.02154"""

import torch

from .core import Step
from .schedule import at


def fresca(low=1.0, high=1.5, cutoff=0.3):
    """Scale the low and the high frequencies of the direction: uncond + scale * filtered(direction).

    low, high: the factors; 1 and 1 is plain CFG. Numbers or Schedules.
    cutoff: where high begins, as a share of the highest frequency along each axis, so at any size the same.
    Along the last two dimensions (of sound, the last). Off at scale 1.
    """

    def apply(state):
        coarse, fine = at(low, state.moment), at(high, state.moment)
        if state.scale == 1 or (coarse, fine) == (1, 1):
            return state
        before = state.direction
        dims = (-2, -1) if before.ndim >= 4 else (-1,)
        sizes = [before.shape[dim] for dim in dims]
        spectrum = torch.fft.rfftn(before, dim=dims)
        inside = [(2 * axis(size, device=before.device).abs() < cutoff)
                  for axis, size in zip([torch.fft.fftfreq, torch.fft.rfftfreq][-len(dims):], sizes)]
        is_low = inside[0][:, None] & inside[1] if len(dims) == 2 else inside[0]
        factor = fine + (coarse - fine) * is_low.to(before.dtype)
        filtered = torch.fft.irfftn(spectrum.mul_(factor), s=sizes, dim=dims)
        return state.bend(filtered.sub_(before), weight=state.scale)  # from uncond, as the paper has it, not from cond

    return Step(apply=apply)
