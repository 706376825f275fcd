"""Time-step guidance. Sadat et al. 2024, https://arxiv.org/abs/2407.02687 (section 5)"""

from random import Random

from .core import Mistimed, Step
from .interval import ALWAYS
from .schedule import at

EDGE = 0.01  # the nearest that the time which is told comes to an end of the run


def tsg(scale=1.5, spread=0.1, power=1.0, seed=0, window=ALWAYS):
    """Away from the prediction of a network that is told a wrong time: + scale * (cond - mistimed).

    scale: 0 is off and costs nothing; the paper's w is scale + 1. A number or a Schedule.
    spread, power: the time that is told is t + spread * t^power * n, where t falls from 1 to 0 over the run and n is
        drawn from a normal distribution, once for each step. A spread of 0 is off. spread: a number or a Schedule.
    seed: with the step it decides n.
    The paper's equations move the time, as this does. Its experiments add noise to the network's embedding of it.
    """

    def mistimed(moment):
        """The branch of this moment, or None where it is off."""
        if at(scale, moment) == 0 or not window.holds(moment):
            return None
        time = 1 - moment.percent
        moved = time + at(spread, moment) * time**power * drawn(seed, moment)
        told = min(max(moved, EDGE), 1 - EDGE)
        return None if moved == time else Mistimed(moment.sigma, moment.timeline.sigma_at(1 - told))

    def asks(moment):
        branch = mistimed(moment)
        return moment if branch is None else moment.ask(branch)

    def apply(state):
        told = state.branches.get(mistimed(state.moment))
        return state if told is None else state.add(state.cond - told, at(scale, state.moment))

    return Step(asks, apply)


def drawn(seed, moment):
    """A normal number, the same at each evaluation of a step and for each sample of a batch."""
    return Random(seed * 1_000_003 + int(moment.step)).gauss(0, 1)
