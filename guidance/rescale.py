"""CFG rescale. Lin et al. 2023, https://arxiv.org/abs/2305.08891 (section 3.4)"""

import torch

from . import ops
from .core import Step
from .schedule import at


def rescale(strength=0.7, space="output"):
    """Give the answer the standard deviation that cond has.

    strength: how far; 0 is off, 1 all the way. A number or a Schedule.
    space: compare network outputs ("output", the paper's: noise, v or velocity), or pictures ("x0", as LTX-2 does).
    """

    def apply(state):
        amount = at(strength, state.moment)
        if amount == 0 or state.is_cond:
            return state
        skip = state.moment.space.parts(state.moment.sigma)[0] if space == "output" else 0.0
        # The output is (x0 - skip * x) / gain, and a ratio ignores the gain.
        want = ops.std(torch.sub(state.cond, state.x, alpha=skip))
        answer = torch.sub(state.denoised, state.x, alpha=skip)
        return state.add(answer.mul_(amount * (ops.match(want, ops.std(answer)) - 1)))

    return Step(apply=apply)
