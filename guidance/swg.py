"""Sliding window guidance (SWG). Adaloglou et al. 2024, https://arxiv.org/abs/2411.10257"""

import torch

from .core import Cropped, Step
from .interval import ALWAYS
from .schedule import at


def swg(scale=0.3, size=0.625, count=2, masked=True, window=ALWAYS):
    """Away from the prediction of a model that sees the picture through overlapping windows:
    + scale * (cond - cropped).

    scale: 0 is off and costs nothing. A number or a Schedule.
    size: of a window, as a share of each side. 1 is the whole picture, and off.
    count: of windows along each side, at least 2; count * size has to be 1 or more, so that they cover it.
    masked: only where windows overlap, as in the paper's M-SWG.
    """
    if count * size < 1:
        raise ValueError(f"count is {count} and size is {size:g}; their product has to be at least 1, so that the windows "
                         "cover the picture.")
    cropped = Cropped(size, count)

    def on(moment):
        return size < 1 and at(scale, moment) != 0 and window.holds(moment)

    def asks(moment):
        return moment.ask(cropped) if on(moment) else moment

    def apply(state):
        if cropped not in state.branches or not on(state.moment):
            return state
        term = state.cond - state.branches[cropped]
        return state.add(term.mul_(overlap(cropped, term)) if masked else term, at(scale, state.moment))

    return Step(asks, apply)


def overlap(cropped, x):
    """1 where several windows see the picture, and 0 elsewhere, shaped (height, width)."""
    rows, columns = (torch.zeros(side) for side in x.shape[-2:])
    for seen in (rows, columns):
        for start, size in cropped.windows(len(seen)):
            seen[start:start + size] += 1
    return (torch.outer(rows, columns) > 1).to(x)
