"""Skipped layers. Hyung et al. 2024 (STG), https://arxiv.org/abs/2411.18664; Stability AI 2024 (SLG, in sd3.5's code)"""

from dataclasses import replace

from .core import Perturbed, Step
from .interval import ALWAYS
from .perturbed import away


def skip_layers(layers, scale=1.0, what="block", rescale=0.0, window=ALWAYS):
    """Away from the prediction of a model without some of its layers: + scale * (cond - skipped).

    layers: their names. what: "block" leaves them out (SLG, STG-R), "attention" only what their self-attention brings from
    other places (STG-A). scale, rescale: see `away`.
    """
    shorter = skipped(layers, what)
    return away(lambda moment: shorter, scale, rescale, window)


def skip_layers_in_uncond(layers, what="block", window=ALWAYS):
    """Guide away from the negative as a model without some of its layers predicts it. No further prediction."""
    shorter = skipped(layers, what)
    return Step(lambda moment: replace(moment, weakened=shorter) if window.holds(moment) else moment)


def skipped(layers, what):
    return Perturbed("skip" if what == "block" else "identity", tuple(layers))
