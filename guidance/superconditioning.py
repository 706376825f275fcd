"""Single-pass superconditioning. madebyollin 2025, https://gist.github.com/madebyollin/9ade93d41eef03034374e6a7cfd4b28e"""

from dataclasses import replace

from .core import UNCOND, Step, Unprompted


def superconditioning():
    """What a network says without the prompt, in the prompt's own row, stands for uncond: CFG in one row. A negative that
    a step puts there instead stays."""
    return Step(lambda moment: replace(moment, uncond=Unprompted()) if moment.uncond == UNCOND else moment)
