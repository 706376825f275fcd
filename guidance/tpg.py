"""Token perturbation guidance. Rajabi et al. 2025, https://arxiv.org/abs/2506.10036"""

from .core import Perturbed
from .interval import ALWAYS
from .perturbed import away
from .schedule import at


def tpg(layers, scale=3.0, share=1.0, seed=0, rescale=0.0, window=ALWAYS):
    """Away from the prediction of a model that sees the places of the picture in another order: + scale * (cond - shuffled).

    layers: names of those in front of which tokens are shuffled, anew at every layer and noise level. share: of the tokens
    that are shuffled; 0 is off and costs nothing. A number or a Schedule. seed: of the orders, which nothing else draws
    from. scale, rescale: see `away`.
    """

    def shuffled(moment):
        part = at(share, moment)
        return Perturbed("shuffle", tuple(layers), part, 1 + seed + round(1000 * moment.step) * 1_000_003) if part > 0 else None

    return away(shuffled, scale, rescale, window)
