"""The noise levels of the demo model: Stable Diffusion's 1000 sigmas, and the time that the network is told."""
import torch

SIGMA_LIMIT = 80.  # the largest noise the network has seen


def sigma_table() -> torch.Tensor:
    """Variance-exploding sigmas (1000,) of the scaled linear schedule, .029 to 14.6."""
    betas = torch.linspace(.00085 ** .5, .012 ** .5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    return ((1 - kept) / kept).sqrt().float()


def timestep(sigma: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Network time of each sigma, in its shape: the nearest table index, as ComfyUI computes it.

    A flow model starts from pure noise, an infinite sigma. Beyond the table time goes on with the log of sigma at the
    slope of the table's end, and stops at SIGMA_LIMIT.
    """
    logs = table.log()
    slope = 1 / (logs[-1] - logs[-2])
    log = sigma.clamp(min=table[0]).clamp(max=SIGMA_LIMIT).log()
    nearest = (log.unsqueeze(-1) - logs).abs().argmin(-1)
    return nearest + (log - logs[-1]).clamp(min=0) * slope
