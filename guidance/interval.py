"""Guidance in a limited interval. Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724"""

from dataclasses import dataclass

from .core import Step

CLOSE = 1 + 1e-5  # sigmas come from float32 arithmetic, and one on the boundary must not fall off it


@dataclass(frozen=True)
class Window:
    """A part of the run: from `start` (included) to `end` (not), in the order in which the run meets them.

    unit: "percent", 0 to 1, or "sigma", which falls during the run.
    """

    start: float = 0.0
    end: float = 1.0
    unit: str = "percent"

    def __post_init__(self):
        given = f"start is {self.start:g} and end is {self.end:g}"
        if self.unit == "percent" and not 0 <= self.start <= self.end <= 1:
            raise ValueError(f"{given}; in percent they have to be 0 <= start <= end <= 1.")
        if self.unit == "sigma" and not self.start >= self.end >= 0:
            raise ValueError(f"{given}; sigma falls during the run, so start has to be the larger.")

    def holds(self, moment):
        """Whether a Moment is in the window."""
        if self == ALWAYS:
            return True
        high, low = self.start, self.end
        if self.unit == "percent":
            high, low = map(moment.timeline.sigma_at, (high, low))
        return low * CLOSE < moment.sigma <= high * CLOSE


ALWAYS = Window()


def interval(window=Window(5.42, 0.28, "sigma")):
    """Guidance in the window; outside it the scale is 1, so that only cond is computed."""
    return Step(limits=lambda moment: moment if window.holds(moment) else moment.unguided())
