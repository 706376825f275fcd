"""Guidance at every other step. devNegative-asm 2023, https://github.com/AUTOMATIC1111/stable-diffusion-webui/pull/9177"""

from .core import Step
from .interval import ALWAYS


def alternate(every=2, window=ALWAYS):
    """In the window, guide at one step in `every`; at the others the scale is 1, so that cond alone is computed.

    every: 1 guides everywhere. The first step of the run is guided.
    Samplers that evaluate a step more than once: an evaluation between two steps belongs to the first of them.
    """

    def limits(moment):
        unguided = int(moment.step) % every != 0 and window.holds(moment)
        return moment.unguided() if unguided else moment

    return Step(limits=limits)
