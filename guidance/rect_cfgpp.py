"""Rectified-CFG++. Saini, Gupta, Bovik 2025, https://arxiv.org/abs/2510.07631"""

from dataclasses import replace

from .core import Ahead, Step
from .interval import ALWAYS
from .schedule import at


def rect_cfgpp(ahead=0.5, gamma=0.0, window=ALWAYS):
    """Step with the prompt's own velocity, and guide by the direction found part of a step ahead of it:
    v = v_cond + (scale - 1) * (1 - t)^gamma * (v_cond - v_uncond), the bracket where v_cond leads to.

    ahead: how much of the step to look ahead. 0 is the direction at hand. A number or a Schedule.
    gamma: how late guidance sets in, where t is the share of noise: sigma in a flow model. 0 is the same at all times.
    No uncond is computed at hand: one row, and two in a forward of their own.
    """

    def looks(moment):
        """(the prompt, uncond) ahead, or None where the direction at hand will do."""
        sigma = moment.sigma + at(ahead, moment) * (moment.sigma_next - moment.sigma)
        if moment.scale == 1 or 0 in (moment.sigma, sigma) or sigma == moment.sigma or not window.holds(moment):
            return None
        return Ahead(sigma, True), Ahead(sigma, False)

    def asks(moment):
        pair = looks(moment)
        return moment if pair is None else replace(moment.ask(*pair), skip=True)

    def grounds(state):
        moment = state.moment
        pair = looks(moment)
        if pair is None or not all(branch in state.branches for branch in pair):
            return state
        prompt, uncond = (state.branches[branch] for branch in pair)
        return state.redirect((prompt - uncond) * (moment.sigma / pair[0].sigma))

    def apply(state):
        moment = state.moment
        if state.scale == 1 or gamma == 0 or not window.holds(moment):
            return state
        noise = moment.sigma / (moment.sigma + moment.space.alpha(moment.sigma))
        return state.bend(((1 - noise) ** gamma - 1) * state.direction)

    return Step(asks, apply, grounds=grounds)
