"""Ready-made schedules. How strong guidance is over the run, by name.

Wang et al. 2024, https://arxiv.org/abs/2404.13040, write weights over t, from T (all noise) down to 0, for guidance
that adds to cond. ComfyUI's percent is 1 - t/T, and its cfg is 1 where nothing is added, so here

    value(percent) = off + (scale - off) * shape(t/T),    t/T = 1 - percent

and the paper's equal area is a shape whose mean is 1: the average over the run is `scale`.
"""

from collections.abc import Callable
from math import cos, exp, gamma, pi

from .schedule import Schedule, ScheduleError
from .schedule_math import trace

TOLERANCE = 1e-3


def beta_density(run, a, b):
    """run: from 0 at the start of the run to 1 at its end, as beta.py and the authors' code have it."""
    return gamma(a + b) / (gamma(a) * gamma(b)) * run ** (a - 1) * (1 - run) ** (b - 1)


SHAPES: dict[str, Callable[..., float]] = {
    "linear up": lambda t: 2 * (1 - t),
    "linear down": lambda t: 2 * t,
    "cosine up": lambda t: 1 + cos(pi * t),
    "cosine down": lambda t: 1 - cos(pi * t),
    "low-high-low": lambda t: 2 * (1 - abs(2 * t - 1)),
    # The next ones have shapes of their own, and not the mean 1.
    "powered cosine": lambda t, power: (1 - cos(pi * (1 - t) ** power)) / 2,
    # C2FG, 2026, https://arxiv.org/abs/2603.08155
    "exponential": lambda t, rate: exp(rate * (1 - t)),
    # Malarz et al. 2025, https://arxiv.org/abs/2502.10574: a probability density, so its mean is 1.
    "beta": lambda t, a, b: beta_density(1 - t, a, b),
}
PRESETS = ["constant", "linear up", "linear down", "cosine up", "cosine down", "clamp-linear", "powered cosine",
           "interval", "low-high-low", "exponential", "beta"]


def preset(name, scale, off=1.0, floor=3.0, power=4.0, rate=0.693, a=2.0, b=3.0, sigma_high=5.42, sigma_low=0.28):
    """The schedule of that name.

    scale: the mean over the run where the shape has mean 1; where powered cosine ends, where exponential starts.
    off: the value at which guidance does nothing: 1 for a cfg, 0 for a term that is added.
    floor: clamp-linear is linear up, but never less than this. power, rate, a, b: as in the formulas above.
    sigma_high, sigma_low: interval is `scale` where sigma_low < sigma <= sigma_high (Kynkäänniemi et al. 2024,
        https://arxiv.org/abs/2404.07724) and `off` elsewhere.
    """
    extent = scale - off
    if name == "constant":
        return Schedule(((0.0, scale),))
    if name == "interval":
        if not 0 <= sigma_low < sigma_high:
            raise ScheduleError(f"sigma_low is {sigma_low:g} and sigma_high {sigma_high:g}; low has to be the smaller.")
        return Schedule(((2 * sigma_high, off), (sigma_high, scale), (sigma_low, off)), "step", "sigma")
    if name == "clamp-linear":
        end = off + 2 * extent
        if extent <= 0 or floor >= end:
            return Schedule(((0.0, max(floor, end)),))
        bend = max((floor - off) / (end - off), 0)
        return Schedule(tuple({0.0: max(floor, off), bend: max(floor, off), 1.0: end}.items()))
    knobs = {"powered cosine": (power,), "exponential": (rate,), "beta": (a, b)}.get(name, ())
    if name == "beta" and min(a, b) < 1:
        raise ScheduleError(f"a is {a:g} and b is {b:g}; below 1 the beta curve has no highest point.")
    shape = SHAPES[name]
    height = max(abs(shape(i / 64, *knobs)) for i in range(65))
    points = trace(lambda percent: shape(1 - percent, *knobs), (0.0, 1.0), TOLERANCE * height)
    return Schedule(tuple((x, off + extent * y) for x, y in points))
