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
    return _like(torch.linalg.vector_norm(_samples(x), dim=1), x)


def std(x):
    """Standard deviation of each sample, shaped (B, 1, ...). One element has deviation 0."""
    return _like(_samples(x).std(dim=1, correction=0), x)


def ratio(a, b):
    """a / b, and 0 where b is 0, so that a constant or zero sample never makes a NaN."""
    return torch.where(b == 0, 0, a / torch.where(b == 0, 1, b))


def split(x, onto):
    """The parts of each sample of x (parallel, orthogonal) to `onto`. A zero `onto` has no parallel."""
    parallel = ratio(dot(x, onto), dot(onto, onto)) * onto
    return parallel, x - parallel
