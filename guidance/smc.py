"""Sliding mode control CFG (SMC-CFG). Wang et al. 2026, https://arxiv.org/abs/2603.03281"""

from .core import Step
from .interval import ALWAYS
from .memory import Memory
from .schedule import at


def smc_cfg(gain=0.2, decay=5.0, window=ALWAYS):
    """Switch each value of the direction by a fixed amount, against where it is heading.

    In velocities (the noise in an eps model), where e is the prompt's less uncond's, and e' what the last step made of
    its own: e becomes e - gain * sign(e - e' + decay * e'), and the answer is uncond + scale * e.
    gain: the paper's K. 0 is plain CFG. A number or a Schedule.
    decay: the paper's lambda.
    An e smaller than the gain is switched to the other side of 0 and at the next step back, for the rest of the run.
    """
    memory = Memory()

    def apply(state):
        amount, sigma = at(gain, state.moment), state.moment.sigma
        if state.scale == 1 or amount == 0 or sigma == 0 or not window.holds(state.moment):
            memory.keep(state.moment, None)
            return state
        error = state.direction / -sigma
        before = memory.recall(state.moment)
        heading = decay * error if before is None else error.add(before, alpha=decay - 1)
        switch = heading.sign_().mul_(amount)
        memory.keep(state.moment, error - switch)
        return state.bend(switch.mul_(sigma), state.scale)

    return Step(apply=apply)
