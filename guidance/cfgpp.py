"""CFG++. Chung et al. 2024, https://arxiv.org/abs/2406.08070"""

from .core import Step
from .schedule import at


def cfgpp(strength=0.6):
    """Mix by `strength`, and renoise with the unconditional noise:
    x' = a' * (u + strength * (c - u)) + s' * (x - a * u) / s.

    A first-order step that does this is an ordinary CFG step whose scale is strength * s * a' / (s * a' - s' * a)
    (a: alpha of the sigma, primes: where the step lands), so it needs no sampler of its own. Exact where the
    sampler's step is first order; at the last step (s' = 0) the scale is the strength itself.
    """

    def sets(moment):
        # Of the whole step, also between grid points: the sampler goes all the way with what it finds there.
        sigma, landing, alpha = moment.sigma_start, moment.landing, moment.space.alpha
        moved = sigma * alpha(landing) - landing * alpha(sigma)
        gain = sigma * alpha(landing) / moved if moved else 1.0  # no move: any scale gives the same x
        return moment.choose_scale(at(strength, moment) * gain)

    return Step(sets=sets)
