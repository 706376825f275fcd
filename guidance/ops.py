"""Reductions per sample: over every dimension but the batch, at any rank, in the tensor's own precision."""

import torch


def _samples(x):
    return x.flatten(1)


def _like(values, x):
    return values.view(-1, *[1] * (x.ndim - 1))


def dot(a, b):
    """Inner product of each sample, shaped (B, 1, ...)."""
    return _like(torch.linalg.vecdot(_samples(a), _samples(b)), a)


def norm(x):
    """Euclidean norm of each sample, shaped (B, 1, ...)."""
    return dot(x, x).sqrt()  # torch.linalg.vector_norm adds up one by one: 0.5 % off at 2^26 elements on a CPU


def rms(x):
    """Root mean square of each sample, shaped (B, 1, ...): its norm, whatever its size."""
    return norm(x) / x[0].numel() ** 0.5


def std(x):
    """Standard deviation of each sample, shaped (B, 1, ...). That of a constant is 0, however the mean is rounded."""
    mean = _samples(x).mean(dim=1, keepdim=True)
    deviation = (_samples(x) - mean).square_().mean(dim=1, keepdim=True).sqrt_()
    return _like(torch.where(deviation > 1e-6 * mean.abs(), deviation, 0), x)


def quantile(x, q):
    """The value below which a share q of each sample lies, shaped (B, 1, ...); between two values, in proportion.

    Exact, for any dtype and size: torch.quantile refuses halves and more than 2^24 elements, and sorts them all.
    """
    values = _samples(x if x.dtype == torch.float64 else x.float())
    place = q * (values.shape[1] - 1)
    k = int(place)
    if k == values.shape[1] - 1:
        return _like(values.amax(dim=1), x)
    values = parted(values, k)
    return _like(values[:, k].lerp(values[:, k + 1:].amin(dim=1), place - k), x)


def parted(rows, *ranks):
    """Each row with the values of these ranks in their place, smaller values before them and larger ones after."""
    if rows.device.type != "cpu":
        return rows.sort(dim=-1).values
    rows = rows.detach().clone()
    rows.numpy().partition(ranks, axis=-1)  # numpy sees the same memory; torch has no selection as fast
    return rows


def ratio(a, b):
    """a / b, and 0 where b is 0, so that a constant or zero sample never makes a NaN."""
    return torch.where(b == 0, 0, a / torch.where(b == 0, 1, b))


def match(a, b):
    """The factor that makes b as large as a: a / b, and 1 where b is 0 and no factor could."""
    return torch.where(b == 0, 1, a / torch.where(b == 0, 1, b))


def share(x, onto):
    """How often `onto` is contained in each sample of x, shaped (B, 1, ...); 0 where it is zero."""
    return ratio(dot(x, onto), dot(onto, onto))
