"""What guidance away from a perturbed model shares: PAG, SEG, skipped layers and shuffled tokens."""

from dataclasses import replace

from . import ops
from .core import Step
from .interval import ALWAYS
from .schedule import at


def away(perturbed, scale, rescale=0.0, window=ALWAYS):
    """Away from the prediction of a perturbed model: + scale * (cond - perturbed).

    perturbed: from a Moment to the branch, or None for none. scale: 0 is off and costs nothing. A number or a Schedule.
    rescale: how far to bring the answer's standard deviation back to cond's, 0 to 1.
    """

    def asks(moment):
        branch = perturbed(moment) if at(scale, moment) != 0 and window.holds(moment) else None
        return moment if branch is None else moment.ask(branch)

    def apply(state):
        strength, branch = at(scale, state.moment), perturbed(state.moment)
        if strength == 0 or branch not in state.branches or not window.holds(state.moment):
            return state
        state = state.add(state.cond - state.branches[branch], strength)
        if rescale == 0:
            return state
        factor = 1 + rescale * (ops.ratio(ops.std(state.cond), ops.std(state.denoised)) - 1)
        return replace(state, denoised=factor * state.denoised)

    return Step(asks, apply)
