"""Arithmetic with schedules. The result is a schedule again: exact at its points, elsewhere within TOLERANCE.

What is made of steps stays steps, a constant factor or summand keeps the points, and lists stay lists; else straight
lines trace it, where they bend least with fewer points. The work is bounded by MOST_POINTS, whatever the input: curves
that need more points than that are traced as well as that many points can.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from .schedule_values import MOST_POINTS, PerStep, Schedule, ScheduleError, per_step

TOLERANCE = 1e-4  # of the result's height
FINEST = 1e-9  # a schedule's numbers have nine decimals
JUMP = 1e-6  # how far before a step its old value still has a point
END = {"percent": 1.0}  # where an axis ends whatever the run

POINTWISE: dict[str, Callable[[float, float], float]] = {
    "multiply": lambda a, b: a * b, "add": lambda a, b: a + b, "min": min, "max": max,
}


def combine(operation: str, a: Schedule, b: Schedule) -> Schedule:
    """a and b at each moment, multiplied, added, or the smaller or larger of them."""
    operate = POINTWISE[operation]
    axis = _common_axis(a, b)
    if len(a.points) == 1:
        a, b = b, a  # every one of the operations is symmetric
    if len(b.points) == 1 and operation in ("multiply", "add"):
        return type(a)(tuple((x, operate(y, b.points[0][1])) for x, y in a.points), a.interpolation, axis)
    if isinstance(a, PerStep) and (isinstance(b, PerStep) or len(b.points) == 1):
        return _step_by_step(operate, a, b)
    knots = _knots([a, b], _stepwise(a, b))
    if operation in ("min", "max") and not _stepwise(a, b):
        knots = _knots_with_crossings(knots, lambda x: a.value(x) - b.value(x))
    return _draw(lambda x: operate(a.value(x), b.value(x)), knots, axis, a, b)


def shift(a: Schedule, later: float) -> Schedule:
    """The same schedule, `later` on its own axis (less sigma is later). What leaves the axis is cut off."""
    move = round(-later if a.axis == "sigma" else later, 9)
    end = END.get(a.axis, float("inf"))
    if len(a.points) == 1:
        return a
    came_from = {round(x + move, 9): x for x, _ in a.points}
    if min(came_from) >= 0 and max(came_from) <= end:
        return Schedule(tuple((x, y) for x, (_, y) in zip(came_from, a.points)), a.interpolation, a.axis)
    edges = {0.0} if min(came_from) < 0 else set()
    if max(came_from) > end:
        edges.add(end)
    knots = sorted(edges.union(x for x in came_from if 0 <= x <= end))
    return _draw(lambda x: a.value(came_from.get(x, x - move)), knots, a.axis, a)


def reverse(a: Schedule) -> Schedule:
    """The end of the run first."""
    if isinstance(a, PerStep):
        return per_step([y for _, y in reversed(a.points)], a.interpolation)
    _percent_only("reverse", a)
    if a.interpolation != "step":
        return Schedule(tuple((1 - x, y) for x, y in a.points), a.interpolation, a.axis)
    starts = [0.0, *(1 - x for x, _ in reversed(a.points[1:]))]
    return Schedule(tuple({x: y for x, (_, y) in zip(starts, reversed(a.points))}.items()), "step", a.axis)


def concatenate(a: Schedule, b: Schedule, at: float) -> Schedule:
    """a squeezed into the run before `at`, and b squeezed into the rest."""
    _percent_only("concatenate", a, b)
    at = round(at, 9)
    if not 0 < at < 1:
        raise ScheduleError(f"The second schedule would begin at {at:g}; it has to be between 0 and 1.")
    # Positions are rounded, and a point that is found again by division may be on the wrong side of its step.
    of_a = {round(x * at, 9): x for x in [0.0, *(x for x, _ in a.points)]}
    of_b = {round(at + x * (1 - at), 9): x for x in [*(x for x, _ in b.points), 1.0, 0.0]}
    stepwise = _stepwise(a, b)
    knots = {x for x in of_a if x < at} | {x for x in of_b if x >= at}
    if not stepwise:
        knots.update(_before_each([*sorted({0.0, *(x for x in of_a if a.interpolation == "step" and x < at)}), at]))
        knots.update(_before_each([x for x in sorted(of_b) if b.interpolation == "step"]))

    def value(x):
        return a.value(of_a.get(x, x / at)) if x < at else b.value(of_b.get(x, (x - at) / (1 - at)))

    return _draw(value, sorted(knots), "percent", a, b)


def trace(f, knots, tolerance, most=MOST_POINTS):
    """Points of f at the knots, and between them where a straight line misses f by more than `tolerance`.

    Where a line misses most comes first, until there are `most` points.
    """
    points = [(x, f(x)) for x in knots]
    missed = [(-_missed(f, *ends), *ends) for ends in zip(points, points[1:])]
    heapify(missed)
    while missed and -missed[0][0] > tolerance and len(points) < most:
        _, start, end = heappop(missed)
        x = round((start[0] + end[0]) / 2, 9)
        middle = (x, f(x))
        points.append(middle)
        for ends in ((start, middle), (middle, end)):
            heappush(missed, (-_missed(f, *ends), *ends))
    return sorted(points)


def _missed(f, start, end):
    (x0, y0), (x1, y1) = start, end
    if x1 - x0 < 2 * JUMP:
        return 0.0
    return max(abs(f(x) - y0 - t * (y1 - y0)) for t, x in _inside(x0, x1))


def _inside(x0, x1):
    return [(t, x0 + t * (x1 - x0)) for t in (0.25, 0.5, 0.75)]


def _draw(f, knots, axis, *operands):
    if _stepwise(*operands):
        points = [(x, f(x)) for x in (reversed(knots) if axis == "sigma" else knots)]
        steps = [new for old, new in zip([None, *points], points) if old is None or old[1] != new[1]]
        return Schedule(_few_enough(steps), "step", axis)
    # Between the knots too: 0:0, 1:1 times 0:1, 1:0 is 0 at both ends.
    values = [f(x) for x in knots] + [f(x) for ends in zip(knots, knots[1:]) for _, x in _inside(*ends)]
    tolerance = max(TOLERANCE * max(map(abs, [*values, max(values) - min(values)])), FINEST)
    if len(knots) > MOST_POINTS:
        knots = _thinned(f, knots, tolerance)
    return Schedule(_few_enough(trace(f, knots, tolerance)), "linear", axis)


def _few_enough(points):
    if len(points) > MOST_POINTS:
        raise ScheduleError(f"The result would need {len(points)} points; {MOST_POINTS} is the most.")
    return tuple(points)


def _thinned(f, knots, tolerance):
    """Those of the knots that straight lines need to pass all of them within the tolerance, in one pass."""
    kept, last = [knots[0]], (knots[0], f(knots[0]))
    anchor, low, high = last, float("-inf"), float("inf")  # the slopes from the anchor that pass every knot since
    for point in [(x, f(x)) for x in knots[1:]]:
        if not low <= _slope(anchor, point) <= high:
            kept.append(last[0])
            anchor, low, high = last, float("-inf"), float("inf")
        x, y = point
        low = max(low, _slope(anchor, (x, y - tolerance)))
        high = min(high, _slope(anchor, (x, y + tolerance)))
        last = point
    return [*kept, last[0]]


def _slope(start, end):
    return (end[1] - start[1]) / (end[0] - start[0])


def _stepwise(*schedules):
    return all(a.interpolation == "step" or len(a.points) == 1 for a in schedules)


def _knots(schedules, stepwise):
    """Where the schedules bend and step. Unless all are of steps, there is a knot on both sides of a step."""
    knots = {x for a in schedules if len(a.points) > 1 for x, _ in a.points}
    for a in schedules:
        if not stepwise and a.interpolation == "step":
            knots.update(_before_each([x for x, _ in a.points], a.axis))
    return sorted(knots) or [0.0]


def _before_each(steps, axis="percent"):
    """Just before each of the steps at these ascending positions, and after the step before it in the run."""
    pairs = [(x0, x1, min(JUMP, (x1 - x0) / 2)) for x0, x1 in zip(steps, steps[1:])]
    return [round(x0 + gap if axis == "sigma" else x1 - gap, 9) for x0, x1, gap in pairs]


def _knots_with_crossings(knots, difference):
    crossings = []
    signs = [difference(x) for x in knots]
    for low, high, before, after in zip(knots, knots[1:], signs, signs[1:]):
        if before * after < 0 and high - low > 2 * JUMP:
            while high - low > FINEST:
                middle = (low + high) / 2
                low, high = (low, middle) if (difference(middle) > 0) == (after > 0) else (middle, high)
            crossings.append(round(low, 9))
    return sorted({*knots, *crossings})


def _step_by_step(operate, a, b):
    """Of lists: a number for each step again, the shorter one stretched."""
    steps = max(len(a.points), len(b.points))
    stretched = [[s.value(i * (len(s.points) - 1) / (steps - 1)) for i in range(steps)] for s in (a, b)]
    alike = len(b.points) == 1 or a.interpolation == b.interpolation
    return per_step(list(map(operate, *stretched)), a.interpolation if alike else "linear")


def _common_axis(*schedules):
    axes = {a.axis for a in schedules if len(a.points) > 1}
    if len(axes) > 1:
        raise ScheduleError(f"The schedules are on the axes {' and '.join(sorted(axes))}; they need the same one.")
    return axes.pop() if axes else "percent"


def _percent_only(operation, *schedules):
    for a in schedules:
        if a.axis != "percent":
            raise ScheduleError(f"A schedule on the {a.axis} axis has no end to {operation} from; percent has one.")
