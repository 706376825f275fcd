"""A number that changes over the run, and its value at each moment. How it is written is schedule.py's.

Before the first point and after the last the value stays. `step` holds a value from its position on, in the run's
order, so that on the sigma axis an interval is (low, high]. `smooth` is the monotone cubic of Fritsch & Carlson 1980
(https://doi.org/10.1137/0717021) as ComfyUI's curves draw it.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from math import isclose, isfinite, isnan, sqrt

INTERPOLATIONS = ("linear", "smooth", "step")
AXES = ("percent", "sigma", "steps")
LIMIT = 1e6  # every position and value is smaller than this
MOST_POINTS = 1000


class ScheduleError(ValueError):
    """One sentence: what is wrong, where, and what is allowed there."""


@dataclass(frozen=True)
class Schedule:
    """points: ((position, value), ...) in any order, kept ascending and to nine decimals, as its text writes them.

    source: which node made it, for whoever shows what became of it; not part of what it means.
    """

    points: tuple[tuple[float, float], ...]
    interpolation: str = "linear"
    axis: str = "percent"
    source: str | None = field(default=None, compare=False)

    def __post_init__(self):
        points = sorted((tidy(x), tidy(y)) for x, y in self.points)
        if not 1 <= len(points) <= MOST_POINTS:
            raise ScheduleError(f"A schedule has 1 to {MOST_POINTS} points, not {len(points)}.")
        for (x, _), (following, _) in zip(points, points[1:]):
            if x == following:
                raise ScheduleError(f"Two points of the schedule are at {written(x)}; each needs a position of its "
                                    f"own.")
        for x, _ in points:
            if x < 0 or (self.axis == "percent" and x > 1):
                allowed = ("from 0 to 1; where steps or noise levels are meant, the schedule ends in steps or sigma"
                           if self.axis == "percent" else "0 or more")
                raise ScheduleError(f"The schedule has a point at {written(x)}; positions in {self.axis} are "
                                    f"{allowed}.")
        if len(points) == 1:  # a constant has no shape, so that equal constants are equal
            points = [(0.0, points[0][1])]
            object.__setattr__(self, "interpolation", "linear")
            object.__setattr__(self, "axis", "percent")
        object.__setattr__(self, "points", tuple(points))

    def __call__(self, moment) -> float:
        """The value at a Moment of a run; always finite, also where the moment's sigma is not."""
        if len(self.points) == 1:
            return self.points[0][1]
        x = self.position(moment)
        # Sigmas come from float32 arithmetic, and one that is on a point must not fall off it.
        after = bisect_left(self._positions, x)
        nearest = min(self._positions[max(after - 1, 0):after + 1], key=lambda p: abs(x - p))
        return self.value(nearest if isclose(x, nearest, rel_tol=1e-5, abs_tol=1e-6) else x)

    def position(self, moment) -> float:
        """Where a moment is on the schedule's own axis."""
        return moment.step if self.axis == "steps" else getattr(moment, self.axis)

    def value(self, x: float) -> float:
        """The value at a position on the schedule's own axis. Where x is NaN, that of the first point."""
        points = self.points
        if isnan(x) or x <= points[0][0]:
            return points[0][1]
        if x >= points[-1][0]:
            return points[-1][1]
        i = bisect_right(self._positions, x) - 1
        (x0, y0), (x1, y1) = points[i], points[i + 1]
        if self.interpolation == "step":
            return y1 if self.axis == "sigma" and x > x0 else y0
        width = x1 - x0
        t = (x - x0) / width
        if self.interpolation == "linear":
            return y0 + t * (y1 - y0)
        m0, m1 = self._slopes[i], self._slopes[i + 1]
        t2, t3 = t * t, t * t * t
        value = (2 * t3 - 3 * t2 + 1) * y0 + (t3 - 2 * t2 + t) * width * m0
        return value + (3 * t2 - 2 * t3) * y1 + (t3 - t2) * width * m1

    @cached_property
    def _positions(self):
        return [x for x, _ in self.points]

    @cached_property
    def _slopes(self):
        secants = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in zip(self.points, self.points[1:])]
        inner = [(a + b) / 2 if a * b > 0 else 0.0 for a, b in zip(secants, secants[1:])]
        slopes = [secants[0], *inner, secants[-1]]
        for i, secant in enumerate(secants):
            if secant == 0:
                slopes[i] = slopes[i + 1] = 0.0
                continue
            before, after = slopes[i] / secant, slopes[i + 1] / secant
            steepness = sqrt(before * before + after * after)
            if steepness > 3:
                slopes[i] *= 3 / steepness
                slopes[i + 1] *= 3 / steepness
        return slopes

    def __str__(self) -> str:
        if len(self.points) == 1:
            return written(self.points[0][1])
        words = [self.interpolation] * (self.interpolation != "linear") + [self.axis] * (self.axis != "percent")
        points = reversed(self.points) if self.axis == "sigma" else self.points
        return " ".join([", ".join(f"{written(x)}:{written(y)}" for x, y in points), *words])


class PerStep(Schedule):
    """One value for each step of the run, at 0, 1, 2, ...; a run with another number of steps stretches it."""

    def position(self, moment):
        steps = len(moment.timeline.sigmas) - 1
        return moment.step * (len(self.points) - 1) / max(steps - 1, 1)

    def __str__(self):
        values = ", ".join(written(y) for _, y in self.points)
        return values if self.interpolation == "linear" else f"{values} {self.interpolation}"


def per_step(values, interpolation="linear") -> Schedule:
    """A PerStep; of a single value, the constant."""
    points = tuple(enumerate(values))
    return (Schedule if len(points) == 1 else PerStep)(points, interpolation, "steps")


def at(value, moment) -> float:
    """A knob's number at a moment: `value` is a plain number or a Schedule."""
    return value(moment) if isinstance(value, Schedule) else value


def tidy(number):
    """To nine decimals, as texts have them."""
    rounded = float(format(number, ".9f")) + 0.0  # + 0.0 makes -0 into 0
    if not isfinite(rounded) or abs(rounded) >= LIMIT:
        raise ScheduleError(f"The schedule has the number {number}; numbers are between -1000000 and 1000000.")
    return rounded


def written(number):
    return format(number, ".9f").rstrip("0").rstrip(".")
