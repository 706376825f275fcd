"""What is measured on a point's pictures, with intervals, and how far a strategy is from plain CFG of equal alignment.

Intervals (95 %) are from drawing the prompts anew with replacement (bootstrap): pictures of one prompt are not independent
of each other. All points have the same prompts and seeds, and each draw takes the same prompts for all of them, so that
what the points share falls out of their differences.
"""
from typing import NamedTuple

import torch

DRAWS = 400
NEAREST = 3  # neighbours, as in Kynkäänniemi et al. 2019


class Real(NamedTuple):
    """Features of real images: mean and covariance of many, and as many as a point has, prompt by prompt."""
    mean: torch.Tensor
    covariance: torch.Tensor
    features: torch.Tensor


def draws(prompts, count=DRAWS, seed=0):
    """How often each prompt is drawn, (1 + count, prompts): first all of them once, then at random."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(prompts, (count, prompts), generator=rng)
    times = [numbers.bincount(minlength=prompts) for numbers in drawn]
    return torch.stack([torch.ones(prompts), *times]).double()


def measure(result, real, times):
    """{measure: (1 + draws,) values} of a point's pictures, of which each prompt has equally many in a row."""
    prompts = times.shape[1]
    mean_of = lambda values: times @ torch.as_tensor(values).double().view(prompts, -1).mean(1) / prompts
    features = torch.as_tensor(result["features"]).double()
    found = {"alignment": mean_of(result["score"]), "clipped": mean_of(result["clipped"]),
             "diversity": mean_of(distances_within(features.view(prompts, -1, features.shape[1])))}
    if real is not None:
        precise, recalled = manifolds(features, real.features)
        found |= {"frechet": frechet(features, real, times), "precision": mean_of(precise), "recall": mean_of(recalled)}
    return found


def distances_within(features):
    """The mean distance of two pictures of one prompt, (prompts,), from features (prompts, pictures, width)."""
    count = features.shape[1]
    if count < 2:
        return torch.full((len(features),), torch.nan, dtype=features.dtype)
    return torch.cdist(features, features).sum((1, 2)) / (count * (count - 1))


def frechet(features, real, times):
    """Frechet distance to the real images' Gaussian in each draw, (draws,)."""
    prompts, width = times.shape[1], features.shape[1]
    of_prompt = features.view(prompts, -1, width)
    total = times.sum(1) * of_prompt.shape[1]
    mean = times @ of_prompt.sum(1) / total[:, None]
    # Around the mean of all, so that nothing cancels.
    centred = of_prompt - features.mean(0)
    products = (centred.transpose(1, 2) @ centred).flatten(1)
    shift = mean - features.mean(0)
    covariance = (times @ products).view(-1, width, width) - total[:, None, None] * shift[:, :, None] * shift[:, None, :]
    covariance = covariance / (total[:, None, None] - 1)
    values, vectors = torch.linalg.eigh(real.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum(1)
    spread = covariance.diagonal(dim1=1, dim2=2).sum(1) + real.covariance.trace() - 2 * overlap
    return (mean - real.mean).square().sum(1) + spread


def manifolds(features, real, nearest=NEAREST):
    """(which pictures lie among the real ones, which real ones lie among the pictures): improved precision and recall
    (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991). To lie among others is to be no farther from one of them
    than its `nearest`-th neighbour is."""
    def among(points, others):
        radii = torch.cdist(others, others).kthvalue(nearest + 1, dim=1).values  # the first is itself
        return (torch.cdist(points, others) <= radii).any(1)

    return among(features, real), among(real, features)


def interval(values):
    """The 95 % interval of a measure from its value and its draws. The spread is that of the draws, around the value: a
    Frechet distance comes out higher in every draw, which has fewer different pictures."""
    drawn = values[1:]
    kept = drawn[~drawn.isnan()]
    if values[0].isnan() or len(kept) < 0.95 * len(drawn):
        return torch.nan, torch.nan
    low, high = torch.quantile(kept, torch.tensor([0.025, 0.975], dtype=kept.dtype)) - kept.mean() + values[0]
    return low.item(), high.item()


# ---------------------------------------------------------------------------------------------- at equal alignment

def lowest_at(alignment, alignments, frechets):
    """The lowest Frechet distance at an alignment (draws,) on the line through a strategy's points, (points, draws) each in
    the order of its strength; NaN where the line does not reach it."""
    share = (alignment - alignments[:-1]) / (alignments[1:] - alignments[:-1])
    line = frechets[:-1] + share * (frechets[1:] - frechets[:-1])
    reached = (share >= 0) & (share <= 1)
    lowest = torch.where(reached, line, torch.inf).amin(0)
    return lowest.where(lowest < torch.inf, torch.nan)


class Verdict(NamedTuple):
    """A point beside plain CFG of the same alignment. difference: of the Frechet distances; below 0 is better."""
    difference: float
    low: float
    high: float
    word: str


def compare(point, plain):
    """The verdict on a point's measures, given those of plain CFG's points. Where one follows the prompt better than any of
    them it is compared with the best of them: then it may be found better, but not worse."""
    alignments, frechets = (torch.stack([one[name] for one in plain]) for name in ("alignment", "frechet"))
    best = alignments.amax(0)
    values = point["frechet"] - lowest_at(point["alignment"].minimum(best), alignments, frechets)
    low, high = interval(values)
    beyond = interval(point["alignment"] - best)[0] > 0
    if low != low or beyond and high >= 0:
        word = "more than CFG reaches" if beyond else "less than CFG has"
        return Verdict(torch.nan, torch.nan, torch.nan, word)
    word = "better" if high < 0 else "worse" if low > 0 else "not told apart"
    return Verdict(values[0].item(), low, high, word)


def roughness(plain):
    """How wrong the line between plain CFG's points may be: the largest miss, as a Frechet distance, at a point that is left
    out of it. Twice as far apart as the points are, so it is too large rather than too small."""
    alignments, frechets = (torch.stack([one[name][:1] for one in plain]) for name in ("alignment", "frechet"))
    misses = [0.0]
    for i in range(1, len(plain) - 1):
        rest = [point for point in range(len(plain)) if point != i]
        miss = lowest_at(alignments[i], alignments[rest], frechets[rest]) - lowest_at(alignments[i], alignments, frechets)
        misses.append(miss.abs().nan_to_num(0).item())
    return max(misses)
