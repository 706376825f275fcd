"""Smoothed energy guidance. Hong 2024, https://arxiv.org/abs/2408.00760"""

from .core import Perturbed
from .interval import ALWAYS
from .perturbed import away
from .schedule import at

INFINITE = 1000.0  # from here on, a blur is the mean


def seg(layers, scale=3.0, sigma=INFINITE, rescale=0.0, window=ALWAYS):
    """Away from the prediction of a model whose neighbouring places look for the same: + scale * (cond - blurred).

    layers: names of those whose queries are blurred. sigma: of the Gaussian blur, in tokens; 0 is off and costs nothing,
    INFINITE gives every place of a frame the same query. A number or a Schedule. scale, rescale: see `away`.
    """

    def blurred(moment):
        width = at(sigma, moment)
        return Perturbed("blur", tuple(layers), width) if width > 0 else None

    return away(blurred, scale, rescale, window)
