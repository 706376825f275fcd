"""Perturbed-attention guidance. Ahn et al. 2024, https://arxiv.org/abs/2403.17377"""

from dataclasses import replace

from . import ops
from .core import Perturbed, Step
from .schedule import at


def pag(layers, scale=3.0, rescale=0.0):
    """Away from the prediction of a model that cannot look around: + scale * (cond - perturbed).

    layers: names of the self-attention layers whose map becomes the identity.
    scale: 0 is off and costs nothing. A number or a Schedule.
    rescale: how far to bring the answer's standard deviation back to cond's, 0 to 1.
    """
    perturbed = Perturbed("identity", frozenset(layers))

    def asks(moment):
        return moment.ask(perturbed) if at(scale, moment) != 0 else moment

    def apply(state):
        strength = at(scale, state.moment)
        if strength == 0 or perturbed not in state.branches:
            return state
        state = state.add(state.cond - state.branches[perturbed], strength)
        if rescale == 0:
            return state
        factor = 1 + rescale * (ops.ratio(ops.std(state.cond), ops.std(state.denoised)) - 1)
        return replace(state, denoised=factor * state.denoised)

    return Step(asks, apply)
