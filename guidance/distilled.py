"""Distilled guidance: a scale that the model takes as an input. Meng et al. 2022, https://arxiv.org/abs/2210.03142"""

from dataclasses import replace

from .core import Step
from .interval import ALWAYS
from .schedule import at


def distilled(scale=3.5, window=ALWAYS):
    """What the model is told to guide by, for every prediction; outside the window what the prompts say stays.

    scale: a number or a Schedule.
    """
    return Step(lambda moment: replace(moment, distilled=at(scale, moment)) if window.holds(moment) else moment)
