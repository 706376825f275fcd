"""Perp-Neg. Armandpour et al. 2023, https://arxiv.org/abs/2304.04968"""

from . import ops
from .core import UNCOND, Prompt, Step
from .interval import ALWAYS
from .schedule import at


def perp_neg(key, weight=1.0, window=ALWAYS):
    """Push away from only that part of the negative which the prompt does not share.

    denoised - scale * weight * (n - uncond) orthogonal to (cond - uncond), where uncond is the empty prompt: what
    prompt and negative have in common stays. Several of these add up. One more row.
    """
    negative = Prompt(key)

    def asks(moment):
        on = at(weight, moment) * moment.scale != 0 and window.holds(moment)
        return moment.ask(UNCOND, negative) if on else moment

    def apply(state):
        n = state.branches.get(negative)
        strength = at(weight, state.moment) * state.scale
        if n is None or strength == 0:
            return state
        against, prompt = n - state.uncond, state.cond - state.uncond
        return state.add(against.addcmul_(ops.share(against, prompt), prompt, value=-1), -strength)

    return Step(asks, apply)
