"""A number that changes over the run, written as text: `0:7.5, 0.5:6, 1:1 smooth percent`.

    schedule      = number | point { "," point } { word }        a number alone is a constant
    point         = number ":" number                            position : value
    word          = interpolation | axis                         each at most once, at the end
    interpolation = "linear" | "smooth" | "step"                 linear when absent
    axis          = "percent" | "sigma" | "steps"                percent when absent
    number        = [ "+" | "-" ] up to 6 digits [ "." up to 9 digits ]

Positions are 0 to 1 on the percent axis (ComfyUI's percent) and not negative on the others; steps count from 0.
No two points share a position; any order will do, and the canonical one is the run's, in which sigma falls.
Before the first point and after the last the value stays. `step` holds a value from its position on, in the run's
order, so that on the sigma axis an interval is (low, high]. `smooth` is the monotone cubic of Fritsch & Carlson 1980
(https://doi.org/10.1137/0717021) as ComfyUI's curves draw it.
web/js/curve.js reads and draws the same texts; tests/schedules.json holds the two together.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from math import isclose, isfinite, sqrt

INTERPOLATIONS = ("linear", "smooth", "step")
AXES = ("percent", "sigma", "steps")
LIMIT = 1e6  # every position and value is smaller than this
MOST_POINTS = 1000

_TOKEN = re.compile(r"[ \t\r\n]*(?:(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))|(?P<word>[A-Za-z_]+)|(?P<mark>[:,])|(?P<other>[^ \t\r\n]))")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})")


class ScheduleError(ValueError):
    """One sentence: the text, where it goes wrong, and what is allowed there."""


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
        points = sorted((_tidy(x), _tidy(y)) for x, y in self.points)
        if not 1 <= len(points) <= MOST_POINTS:
            raise ScheduleError(f"A schedule has 1 to {MOST_POINTS} points, not {len(points)}.")
        for (x, _), (following, _) in zip(points, points[1:]):
            if x == following:
                raise ScheduleError(f"Two points of the schedule are at {_number(x)}; each needs a position of its own.")
        for x, y in points:
            if x < 0 or (self.axis == "percent" and x > 1):
                allowed = "0 to 1" if self.axis == "percent" else "0 or more"
                raise ScheduleError(f"The schedule has a point at {_number(x)}; on the {self.axis} axis positions are {allowed}.")
        if len(points) == 1:  # a constant has no shape, so that equal constants are equal
            points = [(0.0, points[0][1])]
            object.__setattr__(self, "interpolation", "linear")
            object.__setattr__(self, "axis", "percent")
        object.__setattr__(self, "points", tuple(points))

    def __call__(self, moment) -> float:
        """The value at a Moment of a run."""
        if len(self.points) == 1:
            return self.points[0][1]
        x = self.position(moment)
        # Sigmas come from float32 arithmetic, and one that is on a point must not fall off it.
        return self.value(next((p for p, _ in self.points if isclose(x, p, rel_tol=1e-5, abs_tol=1e-6)), x))

    def position(self, moment) -> float:
        """Where a moment is on the schedule's own axis."""
        return moment.step if self.axis == "steps" else getattr(moment, self.axis)

    def value(self, x: float) -> float:
        """The value at a position on the schedule's own axis."""
        points = self.points
        if x <= points[0][0]:
            return points[0][1]
        if x >= points[-1][0]:
            return points[-1][1]
        i = bisect_right(points, x, key=lambda point: point[0]) - 1
        (x0, y0), (x1, y1) = points[i], points[i + 1]
        if self.interpolation == "step":
            return y1 if self.axis == "sigma" and x > x0 else y0
        width = x1 - x0
        t = (x - x0) / width
        if self.interpolation == "linear":
            return y0 + t * (y1 - y0)
        m0, m1 = self._slopes[i], self._slopes[i + 1]
        t2, t3 = t * t, t * t * t
        return (2 * t3 - 3 * t2 + 1) * y0 + (t3 - 2 * t2 + t) * width * m0 + (3 * t2 - 2 * t3) * y1 + (t3 - t2) * width * m1

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
            return _number(self.points[0][1])
        words = [self.interpolation] * (self.interpolation != "linear") + [self.axis] * (self.axis != "percent")
        points = reversed(self.points) if self.axis == "sigma" else self.points
        return " ".join([", ".join(f"{_number(x)}:{_number(y)}" for x, y in points), *words])


class PerStep(Schedule):
    """One value for each step of the run; a run with another number of steps stretches it."""

    def position(self, moment):
        steps = len(moment.timeline.sigmas) - 1
        return moment.step * (len(self.points) - 1) / max(steps - 1, 1)


def per_step(values) -> PerStep:
    return PerStep(tuple(enumerate(values)), "linear", "steps")


def parse(text: str) -> Schedule:
    """The schedule that a text means. `parse(str(s)) == s` for every schedule s. Raises ScheduleError."""
    tokens = [(m.lastgroup, m.group(m.lastgroup), m.start(m.lastgroup)) for m in _TOKEN.finditer(text)]
    tokens.append(("end", "the end", len(text)))
    at = 0

    def fail(expected):
        _, found, position = tokens[at]
        raise ScheduleError(
            f"The schedule {text!r} has {found!r} at position {position}, where {expected} belongs; "
            "an example is 0:7.5, 0.5:6, 1:1 smooth."
        )

    def take(kind, expected):
        nonlocal at
        if tokens[at][0] != kind or (kind == "number" and not _NUMBER.fullmatch(tokens[at][1])):
            fail(expected)
        at += 1
        return tokens[at - 1][1]

    number = "a number with up to 6 digits and 9 decimals"
    points = [(0.0, float(take("number", number)))]
    if tokens[at][1] == ":":
        at = 0
        points = []
        while True:
            x = float(take("number", number))
            if tokens[at][1] != ":":
                fail("':'")
            at += 1
            points.append((x, float(take("number", number))))
            if tokens[at][1] != ",":
                break
            at += 1
    words = {}
    while tokens[at][0] == "word":
        word = tokens[at][1]
        kind = "interpolation" if word in INTERPOLATIONS else "axis" if word in AXES else None
        if kind is None or kind in words:
            fail("one of " + ", ".join(w for w in INTERPOLATIONS + AXES))
        words[kind] = word
        at += 1
    if tokens[at][0] != "end":
        fail("',' or the end")
    try:
        return Schedule(tuple(points), **words)
    except ScheduleError as error:
        raise ScheduleError(f"In {text!r}: {error}") from None


def at(value, moment) -> float:
    """A knob's number at a moment: `value` is a plain number or a Schedule."""
    return value(moment) if isinstance(value, Schedule) else value


def _tidy(number):
    tidy = float(format(number, ".9f")) + 0.0  # + 0.0 makes -0 into 0
    if not isfinite(tidy) or abs(tidy) >= LIMIT:
        raise ScheduleError(f"The schedule has the number {number}; numbers are between -1000000 and 1000000.")
    return tidy


def _number(number):
    return format(number, ".9f").rstrip("0").rstrip(".")
