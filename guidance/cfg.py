"""Classifier-free guidance. Ho & Salimans 2022, https://arxiv.org/abs/2207.12598"""

from .core import Step
from .schedule import at


def cfg(scale):
    """uncond + scale * (cond - uncond), with a scale that may change over the run.

    scale: a number or a Schedule; 1 is pure cond (and uncond is not computed), 0 pure uncond.
    The host combines; this step only says by how much.
    """
    return Step(sets=lambda moment: moment.choose_scale(at(scale, moment)))
