"""Entropy rectifying guidance. Berrada Ifriqi et al. 2025, https://arxiv.org/abs/2504.13987"""

from .core import Perturbed
from .interval import ALWAYS
from .perturbed import away
from .schedule import at


def erg(layers, scale=1.0, tau=0.5, rescale=0.0, window=ALWAYS):
    """Away from the prediction of a model whose attention is less sure: + scale * (cond - unsure).

    This is the paper's change of the image model (I-ERG) in its default, softmax(tau q k) v; not that of the text encoder.
    layers: names of those whose attention is changed. tau: below 1 they look at more places alike, above at fewer; 1 is off
    and costs nothing. A number or a Schedule. scale, rescale: see `away`.
    """

    def unsure(moment):
        factor = at(tau, moment)
        return Perturbed("temperature", tuple(layers), factor) if factor != 1 else None

    return away(unsure, scale, rescale, window)
