"""Guidance in a limited interval. Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724"""

from .core import Step

CLOSE = 1 + 1e-5  # sigmas come from float32 arithmetic, and one on the boundary must not fall off it


def inside(moment, start, end, unit):
    """Whether a moment lies in the interval from `start` (included) to `end` (not), in percent or in sigma."""
    high, low = (start, end) if unit == "sigma" else map(moment.timeline.sigma_at, (start, end))
    return low * CLOSE < moment.sigma <= high * CLOSE


def interval(start=5.42, end=0.28, unit="sigma"):
    """Guidance where end < sigma <= start; outside, the scale is 1, so that only cond is computed.

    start, end: in `unit`, "sigma" or "percent", in the order in which the run meets them.
    """
    return Step(plan=lambda moment: moment if inside(moment, start, end, unit) else moment.at_scale(1.0))
