"""PLADIS. Kim and Sim 2025, https://arxiv.org/abs/2503.07677; entmax: Peters et al. 2019, https://arxiv.org/abs/1905.05702"""

from dataclasses import replace

import torch

from .core import Sparse, Step
from .interval import ALWAYS
from .schedule import at

AT_ONCE = 2 ** 24  # weights that are computed together; a few such tensors are held at a time


def entmax15(logits):
    """Weights (..., keys) that sum to 1 of which most are 0: the squares of what of logits / 2 is above a threshold."""
    above = lowered(logits / 2)
    ordered, count = by_size(above)
    mean = ordered.cumsum(-1) / count
    spread = ordered.square().cumsum(-1) - count * mean.square()
    thresholds = mean - ((1 - spread) / count).clamp_min(0).sqrt()
    return (above - last(thresholds, thresholds <= ordered)).clamp_min(0).square()


def sparsemax(logits):
    """Weights (..., keys) that sum to 1 of which nearly all are 0: what of the logits is above a threshold."""
    above = lowered(logits)
    ordered, count = by_size(above)
    thresholds = (ordered.cumsum(-1) - 1) / count
    return (above - last(thresholds, thresholds < ordered)).clamp_min(0)


def lowered(logits):
    """Logits below their largest: finite, because 1 below it there is no weight in either way, and so none at 2."""
    return (logits - logits.amax(-1, keepdim=True)).clamp_min(-2)


def by_size(logits):
    ordered = logits.sort(-1, descending=True).values
    return ordered, torch.arange(1, ordered.shape[-1] + 1, device=logits.device, dtype=logits.dtype)


def last(thresholds, holds):
    """The threshold of the largest set of keys for which it holds, as it then does for all that are smaller."""
    # It holds for the largest key alone, except where logits are NaN: a place that is not there ends a GPU's whole process.
    return thresholds.gather(-1, holds.sum(-1, keepdim=True).clamp_min(1) - 1)


FUNCTIONS = {"entmax 1.5": entmax15, "sparsemax": sparsemax}


def sparser(q, k, v, mask=None, scale=2.0, function="entmax 1.5"):
    """By what attention's answer changes where its weights are scale * sparse + (1 - scale) * softmax.

    q, k, v: (batch, heads, tokens, width). mask: what is added to (batch, heads, queries, keys), or None.
    """
    keys, values, weights = k.float().mT * q.shape[-1] ** -0.5, v.float(), FUNCTIONS[function]
    mask = None if mask is None else mask.expand(*q.shape[:3], k.shape[2])
    pieces, start = [], 0
    for piece in q.split(max(AT_ONCE // (q.shape[0] * q.shape[1] * k.shape[2]), 1), dim=2):
        logits = torch.matmul(piece.float(), keys)
        if mask is not None:
            logits = logits + mask[:, :, start:start + piece.shape[2]]
        pieces.append(torch.matmul(weights(logits) - torch.softmax(logits, -1), scale * values).to(v.dtype))
        start += piece.shape[2]
    return torch.cat(pieces, 2)


def pladis(scale=2.0, function="entmax 1.5", window=ALWAYS):
    """Each place of the picture looks at fewer words: attention to the text beyond softmax, in every row.

    scale: 0 is softmax and costs nothing, 1 the sparse function, above 1 beyond it. A number or a Schedule. function: of
    FUNCTIONS.
    """

    def asks(moment):
        strength = at(scale, moment)
        return moment if strength == 0 or not window.holds(moment) else replace(moment, sparse=Sparse(strength, function))

    return Step(asks)
