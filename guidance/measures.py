"""An evaluation in numbers: lengths, angles and shares, all from the inner products of the vectors that it is made of."""

from math import isfinite

import numpy as np

QUANTILE = 0.999  # of cond's values, by their size; what the answer has beyond it is counted
ROUNDING = 1e-5  # of the answer's length; what is shorter is no part of it
CFG, OTHERS = "CFG", "other nodes"


def taken(vectors):
    """What `numbers` is made from, of each of E evaluations, on the device of these: for n vectors their inner products
    (E, B, n, n) and their sums (E, n, B), and how many values of the answer are beyond cond's quantile (E, B).

    vectors: cond, answer, direction, the direction one evaluation earlier, and each of the parts: fp32 (E, n, B, ...).
    """
    vectors = vectors.flatten(3)
    sizes, above = vectors[:, :2].abs(), max(round((1 - QUANTILE) * vectors.shape[3]), 1)
    beyond = sizes[:, 1] > sizes[:, 0].topk(above).values[..., -1:]
    by_sample = vectors.transpose(1, 2).contiguous()  # many small products of strided matrices take ten times as long
    return by_sample @ by_sample.mT, vectors.sum(3), beyond.sum(2)


def numbers(products, sums, beyond, size, scale, names, guided=True, follows=True):
    """Numbers by name, each the mean over the batch; None for one that is not known, or not finite.

    products, sums, beyond: what `taken` gave of one evaluation, as arrays. size: how many values a sample has. scale: of
    guidance. names: of the parts. guided: whether the direction is known. follows: whether the one before is.
    """
    squares, means = np.diagonal(products, axis1=1, axis2=2), sums.T / size
    with np.errstate(all="ignore"):
        lengths, variances = np.sqrt(squares), squares / size - means**2
        deviations = np.sqrt(np.where(variances > 1e-6 * squares / size, variances, 0))  # of a constant it is rounding
        cosines = products / (lengths[:, :, None] * lengths[:, None, :])
        shares, along = lengths / lengths[:, 1:2], products[:, 1] / squares[:, 1:2]
        found = {
            "scale": scale,
            "direction": lengths[:, 2] / lengths[:, 0] if guided else None,
            "cosine_to_cond": cosines[:, 2, 0] if guided else None,
            "cosine_to_last": cosines[:, 2, 3] if guided and follows else None,
            "parallel_share": abs(cosines[:, 2, 0]) if guided else None,
            "std_ratio": deviations[:, 1] / deviations[:, 0],
            "beyond_share": np.where(np.isfinite(lengths[:, 1]), beyond / size, np.nan),
        }
        lies = {"cond": along[:, 0], CFG: (scale - 1) * along[:, 2], **dict(zip(names, along.T[4:]))}
        added = {CFG: abs(scale - 1) * shares[:, 2], **dict(zip(names, shares.T[4:]))}
    for shown in (added, lies):
        if OTHERS in shown and np.all(shares[:, 4 + names.index(OTHERS)] < ROUNDING):
            shown[OTHERS] = 0.0
    return {name: mean(value) for name, value in found.items()} | {
        "added": {name: mean(value) for name, value in added.items()},
        "along": {name: mean(value) for name, value in lies.items()},
    }


def mean(values):
    """The mean as a plain number; None where there is none that is finite."""
    found = None if values is None else float(np.mean(values))
    return found if found is not None and isfinite(found) else None
