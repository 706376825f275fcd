"""Negative weights in a prompt. hako-mikan 2023 (NegPip), https://github.com/hako-mikan/sd-webui-negpip"""

from dataclasses import replace

from .core import Step
from .interval import ALWAYS
from .schedule import at


def push_away(key, weight=1.0, window=ALWAYS, times=1.0):
    """Tokens that count against the prompt: in attention they are found as others are, but their values are taken
    `weight` times from the answer. One softmax, no row.

    key: what the host knows these tokens by. weight: 0 is off. A number or a Schedule. times: what it is multiplied by.
    """

    def asks(moment):
        strength = at(weight, moment) * times
        if strength == 0 or not window.holds(moment):
            return moment
        return replace(moment, beside=replace(moment.beside, pushed=(*moment.beside.pushed, (key, strength))))

    return Step(asks)
