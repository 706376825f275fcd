"""CFG with cond's norm, as the pipelines of Qwen-Image (per token) and Z-Image (of the whole, as a limit) have it.
Wu et al. 2025, https://arxiv.org/abs/2508.02324; Cai et al. 2025, https://arxiv.org/abs/2511.22699"""

import torch
from einops import repeat

from . import ops
from .core import Step
from .schedule import at


def renorm(strength=1.0, over="tokens", limit=0.0, space="output"):
    """Give the answer the norm that cond has.

    strength: how far; 0 is off, 1 all the way. A number or a Schedule.
    over: whose norm: of each "tokens" (all channels of 2 x 2 latents, what a transformer reads at once), of each
        "pixels" (all channels at one place), or of the whole "sample".
    limit: 0 makes the norms equal. Otherwise the answer's may be up to `limit` times cond's, and smaller stays.
    space: compare network outputs ("output": noise, v or velocity) or pictures ("x0").
    """

    def apply(state):
        amount = at(strength, state.moment)
        if amount == 0 or (state.is_cond and (limit == 0 or limit >= 1)):
            return state
        skip = state.moment.space.parts(state.moment.sigma)[0] if space == "output" else 0.0
        norm = ops.norm if over == "sample" else token_norm if over == "tokens" else channel_norm
        # The output is (x0 - skip * x) / gain, and a ratio ignores the gain.
        want = norm(torch.sub(state.cond, state.x, alpha=skip))
        answer = torch.sub(state.denoised, state.x, alpha=skip)
        factor = ops.match(want, norm(answer))
        if limit != 0:
            factor = (limit * factor).clamp(max=1)
        return state.add(answer.mul_(amount * (factor - 1)))

    return Step(apply=apply)


def channel_norm(x):
    """The norm over the channels, at each place."""
    return torch.linalg.vecdot(x, x, dim=1).sqrt().unsqueeze(1)


def token_norm(x):
    """The norm over all channels of 2 x 2 places, at each of them. Sound has tokens of one place."""
    if x.ndim < 4:
        return channel_norm(x)
    height, width = x.shape[-2:]
    energy = torch.linalg.vecdot(x, x, dim=1)
    energy = torch.nn.functional.avg_pool2d(energy.view(-1, height, width), 2, ceil_mode=True, divisor_override=1)
    energy = repeat(energy, "n h w -> n (h 2) (w 2)")[:, :height, :width]
    return energy.sqrt().view(x.shape[0], 1, *x.shape[2:])
