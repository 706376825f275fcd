"""An evaluation in numbers: lengths, angles and shares, all from the inner products of the vectors that it is made of."""

from math import isfinite

import numpy as np
import torch

QUANTILE = 0.999  # of cond's values, by their size; what the answer has beyond it is counted
ROUNDING = 1e-5  # of the answer's length; what is shorter is no part of it
CFG, OTHERS = "CFG", "other nodes"


def taken(cond, direction, before, answer, parts):
    """What `numbers` is made from, a row for each sample, on the device of these: (B, n * n + n + 1) for n vectors.

    cond, direction, before (the direction one evaluation earlier), answer, and each of the parts: fp32 (B, ...).
    """
    vectors = torch.stack([vector.flatten(1) for vector in (cond, direction, before, answer, *parts)], 1)
    sizes = vectors[:, 0:4:3].abs()  # of the values of cond and of the answer
    most = max(round((1 - QUANTILE) * vectors.shape[2]), 1)
    beyond = sizes[:, 1] > sizes[:, 0].topk(most, 1, sorted=True).values[:, -1:]
    return torch.cat([(vectors @ vectors.mT).flatten(1), vectors.sum(2), beyond.float().sum(1, keepdim=True)], 1)


def numbers(values, size, scale, names, guided=True, follows=True):
    """Numbers by name, each the mean over the batch; None for one that is not known, or not finite.

    values: what `taken` gave, as an array. size: how many values a sample has. scale: of guidance. names: of the parts.
    guided: whether the direction is known. follows: whether the one before is.
    """
    count = 4 + len(names)
    products = values[:, :count**2].reshape(-1, count, count)
    means = values[:, count**2:-1] / size
    squares = np.diagonal(products, axis1=1, axis2=2)
    with np.errstate(all="ignore"):
        lengths, variances = np.sqrt(squares), squares / size - means**2
        deviations = np.sqrt(np.where(variances > 1e-6 * squares / size, variances, 0))  # of a constant it is rounding
        cosines = products / (lengths[:, :, None] * lengths[:, None, :])
        shares, along = lengths / lengths[:, 3:4], products[:, 3] / squares[:, 3:4]
        found = {
            "scale": scale,
            "direction": lengths[:, 1] / lengths[:, 0] if guided else None,
            "cosine_to_cond": cosines[:, 1, 0] if guided else None,
            "cosine_to_last": cosines[:, 1, 2] if guided and follows else None,
            "parallel_share": abs(cosines[:, 1, 0]) if guided else None,
            "std_ratio": deviations[:, 3] / deviations[:, 0],
            "beyond_share": np.where(np.isfinite(lengths[:, 3]), values[:, -1] / size, np.nan),
        }
        added = {CFG: abs(scale - 1) * shares[:, 1], **dict(zip(names, shares.T[4:]))}
        along = {"cond": along[:, 0], CFG: (scale - 1) * along[:, 1], **dict(zip(names, along.T[4:]))}
    for shown in (added, along):
        if OTHERS in shown and np.all(shares[:, 4 + names.index(OTHERS)] < ROUNDING):
            shown[OTHERS] = 0.0
    return {name: mean(value) for name, value in found.items()} | {
        "added": {name: mean(value) for name, value in added.items()},
        "along": {name: mean(value) for name, value in along.items()},
    }


def mean(values):
    """The mean as a plain number; None where there is none that is finite."""
    found = None if values is None else float(np.mean(values))
    return found if found is not None and isfinite(found) else None
