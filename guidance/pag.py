"""Perturbed-attention guidance. Ahn et al. 2024, https://arxiv.org/abs/2403.17377"""

from .core import Perturbed
from .interval import ALWAYS
from .perturbed import away


def pag(layers, scale=3.0, rescale=0.0, window=ALWAYS):
    """Away from the prediction of a model that cannot look around: + scale * (cond - perturbed).

    layers: names of those whose self-attention sees only its own place. scale, rescale: see `away`.
    """
    blind = Perturbed("identity", tuple(layers))
    return away(lambda moment: blind, scale, rescale, window)
