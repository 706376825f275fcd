"""What is measured on n images (n, 3, 32, 32) in 0..1 that were asked to show n scenes."""
import torch

from ..nodes.demo.judge import Judge, Scenes
from . import data


def score(images, scenes: Scenes, judge: Judge, reference) -> dict[str, float]:
    """Shares of images with the right attributes, the Frechet distance to real images, and saturation."""
    right = Scenes(*(seen == asked for seen, asked in zip(judge.read(images), scenes)))
    core = right.color & right.shape & right.background
    highest, lowest = images.amax(1), images.amin(1)
    share = lambda hits: hits.float().mean().item()
    return {
        "core3": share(core), "joint4": share(core & right.size),
        **{name: share(hits) for name, hits in right._asdict().items()},
        "frechet": frechet(moments(judge.features(images)), reference),
        "clipped": share((images <= 0) | (images >= 1)),
        "saturation": ((highest - lowest) / highest.clamp(min=1e-3)).mean().item(),
    }


def real(n, seed):
    """n real images and their scenes."""
    rng = torch.Generator().manual_seed(seed)
    scenes = data.draw_scenes(n, rng)
    return data.render(scenes, rng), scenes


def reference(judge, n=5000, seed=77):
    """Mean and covariance of the features of n real images."""
    return moments(torch.cat([judge.features(images) for images in real(n, seed)[0].split(500)]))


def moments(features):
    return features.double().mean(0), features.double().T.cov()


def frechet(one, other):
    """Frechet distance between two Gaussians: |mean difference|^2 + tr(A + B - 2 (A B)^(1/2))."""
    (mean, a), (other_mean, b) = one, other
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return ((mean - other_mean).square().sum() + a.trace() + b.trace() - 2 * overlap).item()


def interval(hits, n):
    """The 95 % interval of a share of which `hits` of n were seen (Wilson 1927)."""
    z, share = 1.96, hits / n
    middle, width = share + z * z / (2 * n), z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return (middle - width) / (1 + z * z / n), (middle + width) / (1 + z * z / n)
