"""What thousands of samples say about a distribution that is known.

All of it follows from means over the samples, so that those of several seeds can be averaged, and drawn again for an
interval, without a look at the samples.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...guidance.space import EPS

CLEAN = 1e-4  # a sigma at which nothing is noise
ANGLES = torch.arange(24) * torch.pi / 24
DIRECTIONS = torch.stack([ANGLES.cos(), ANGLES.sin()])  # (2, directions)
GRID = torch.linspace(-12, 12, 481)
RESAMPLES = 400


@dataclass(frozen=True)
class Seen:
    """Means over samples; dimension 0 is the seed."""

    below: Tensor  # (seeds, directions, places): the share of samples below each place along each direction
    modes: Tensor  # (seeds, K): the share that is nearest to each mode
    first: Tensor  # (seeds, K, 2), (seeds, K): sums of the samples of each mode, and of their squared lengths
    second: Tensor
    doubt: Tensor  # (seeds,): 1 - p(prompt | sample)
    outward: Tensor  # (seeds,): how far a sample is further from the middle of all than its mode is

    def mean(self, weights):
        """Over the seeds, for each row of weights (n, seeds): one more Seen."""
        return Seen(*((weights @ value.reshape(len(value), -1)).view(-1, *value.shape[1:])
                      for value in (getattr(self, field.name) for field in fields(self))))


def see(mixture, prompt, samples):
    """samples: (seeds, n, D), in coordinates of the mixture, whose first two tell its modes apart."""
    seen = []
    for x in samples:
        plane, nearest = x[:, :2], mixture.nearest(x, prompt)
        member = torch.nn.functional.one_hot(nearest, len(mixture.means)).to(x) / len(x)
        places = (plane @ DIRECTIONS).T.contiguous().sort(1).values
        below = torch.searchsorted(places, GRID.expand(len(places), -1).contiguous()) / len(x)
        centres = mixture.means[nearest, :2]
        outward = ((plane - centres) * centres / centres.norm(dim=1, keepdim=True)).sum(1)
        doubt = -mixture.log_class(x, CLEAN, EPS, prompt).clamp(max=0).expm1()
        seen.append((below, member.sum(0), member.T @ plane, member.T @ plane.square().sum(1), doubt.mean(), outward.mean()))
    return Seen(*map(torch.stack, zip(*seen)))


class Truth:
    """The true distribution of a prompt's samples, and how far from it others are."""

    def __init__(self, mixture, prompt):
        self.mixture, self.prompt = mixture, prompt
        wanted = prompt[mixture.classes] == 0
        self.weights = torch.where(wanted, mixture.weights, 0) / mixture.weights[wanted].sum()
        self.width = float(mixture.variance[0].sqrt())
        centres = mixture.means[:, :2] @ DIRECTIONS
        self.below = torch.einsum("k,kdg->dg", self.weights, torch.special.ndtr((GRID - centres[..., None]) / self.width))

    def tilted(self, scale, n=50_000):
        """`below` of p(sample | prompt) p(prompt | sample)^(scale - 1), from weighted samples of the truth."""
        samples = self.mixture.draw(n, torch.Generator().manual_seed(0), self.prompt)
        weight = ((scale - 1) * self.mixture.log_class(samples, CLEAN, EPS, self.prompt)).softmax(0)
        places, order = (samples[:, :2] @ DIRECTIONS).T.contiguous().sort(1)
        shares = torch.nn.functional.pad(weight[order].cumsum(1), (1, 0))
        return shares.gather(1, torch.searchsorted(places, GRID.expand(len(places), -1).contiguous()))

    def distance(self, seen, below=None):
        """Sliced Wasserstein distance to the truth, or to another distribution; exact but for the grid."""
        apart = seen.below - (self.below if below is None else below)
        return apart.abs().sum(2).mean(1) * float(GRID[1] - GRID[0])

    def measures(self, seen):
        """A number of each for each seed of a Seen, or each mean of it:

        distance: to the truth, in units of the coordinates.
        coverage: the share of the truth's modes that is there; 1 is each as often as it should be.
        doubt: how likely samples are of something else than the prompt.
        overshoot: how far modes have moved outwards, and spread: how wide they are; the true width is 1.
        """
        inside = seen.second.sum(1) - (seen.first.square().sum(2) / seen.modes.clamp(min=1e-9)).sum(1)
        return {
            "distance": self.distance(seen),
            "coverage": seen.modes.minimum(self.weights).sum(1),
            "doubt": seen.doubt,
            "overshoot": seen.outward / self.width,
            "spread": (inside / 2).clamp(min=0).sqrt() / self.width,
        }


def resampling(seeds, n=RESAMPLES):
    """Weights (1 + n, seeds): of all seeds alike, then of as many drawn with replacement, again and again."""
    rng = torch.Generator().manual_seed(seeds)
    drawn = torch.randint(seeds, (n, seeds), generator=rng)
    counts = torch.nn.functional.one_hot(drawn, seeds).sum(1)
    return torch.cat([torch.ones(1, seeds), counts]) / seeds


def interval(values):
    """(the value, lowest, highest) from what resampled seeds give, of which the first is all of them: 95 %."""
    low, high = values[1:].quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return float(values[0]), low, high
