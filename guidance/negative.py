"""Negative prompts, and when they act. Ban et al. 2024, https://arxiv.org/abs/2406.02965"""

from dataclasses import replace

from .core import UNCOND, Prompt, Step
from .interval import ALWAYS
from .schedule import at


def negative_instead(key, window=ALWAYS):
    """The negative prompt stands for uncond in the window: n + scale * (cond - n). Costs nothing.

    key: what the host knows the negative's conditioning by. A window that starts late lets the picture form first.
    """
    return Step(lambda moment: replace(moment, uncond=Prompt(key)) if window.holds(moment) else moment)


def negative_weighted(key, weight=1.0, window=ALWAYS):
    """Push away from the negative by its own weight: minus weight * (n - uncond). One more row.

    With weight = scale - 1 this is the plain negative prompt, whatever uncond is.
    """
    negative = Prompt(key)

    def asks(moment):
        on = at(weight, moment) != 0 and window.holds(moment)
        return moment.ask(UNCOND, negative) if on else moment

    def apply(state):
        n = state.branches.get(negative)
        strength = at(weight, state.moment)
        return state if n is None or strength == 0 else state.add(n - state.uncond, -strength)

    return Step(asks, apply)
