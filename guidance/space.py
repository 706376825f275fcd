"""From x0 to what the network predicts, and back. Karras et al. 2022, https://arxiv.org/abs/2206.00364 (section 2)"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Space:
    """How a model noises a latent and reads its own output: two facts, each a function of sigma.

    x = alpha(sigma) * x0 + sigma * noise,  and  x0 = skip * x + gain * output  with  (skip, gain) = parts(sigma).
    """

    alpha: Callable[[float], float]
    parts: Callable[[float], tuple[float, float]]

    def output(self, x, denoised, sigma):
        """The network output (epsilon, v or velocity) that means the x0 prediction `denoised`."""
        skip, gain = self.parts(sigma)
        return (denoised - skip * x) / gain

    def denoised(self, x, output, sigma):
        """The x0 prediction that the network output means: the inverse of `output`."""
        skip, gain = self.parts(sigma)
        return skip * x + gain * output


EPS = Space(lambda sigma: 1.0, lambda sigma: (1.0, -sigma))
V = Space(lambda sigma: 1.0, lambda sigma: (1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5))
FLOW = Space(lambda sigma: 1.0 - sigma, lambda sigma: (1.0, -sigma))
