"""S2-Guidance. Chen et al. 2025, https://arxiv.org/abs/2508.12880"""

from random import Random

from .core import Perturbed
from .interval import Window
from .perturbed import away, seed_at
from .schedule import at

MIDDLE = Window(0.1, 0.9)


def s2_guidance(layers, scale=0.25, share=0.1, seed=0, window=MIDDLE):
    """Away from the prediction of a model without a few of its layers, others each time: + scale * (cond - shorter).

    layers: names of those that may be left out. share: of them that are, at least one; 0 is off and costs nothing. scale,
    share: numbers or Schedules. seed: of the draws, which nothing else draws from.
    """

    def shorter(moment):
        part = at(share, moment)
        if part <= 0:
            return None
        key = seed_at(seed, moment)
        drawn = Random(key).sample(range(len(layers)), max(round(part * len(layers)), 1))
        return Perturbed("skip", tuple(layers[i] for i in sorted(drawn)), seed=key)

    return away(shorter, scale, window=window)
