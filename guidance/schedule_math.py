"""Arithmetic with schedules. The result is a schedule again: exact at its points, elsewhere within TOLERANCE.

What is made of steps stays steps, and a constant factor or summand keeps the points; else straight lines trace it.
"""

from .schedule import MOST_POINTS, Schedule, ScheduleError

TOLERANCE = 1e-4  # of the result's height
JUMP = 1e-6  # how far before a step its old value still has a point
END = {"percent": 1.0}  # where an axis ends whatever the run

POINTWISE = {"multiply": lambda a, b: a * b, "add": lambda a, b: a + b, "min": min, "max": max}


def combine(operation: str, a: Schedule, b: Schedule) -> Schedule:
    """a and b at each moment, multiplied, added, or the smaller or larger of them."""
    operate = POINTWISE[operation]
    axis = _common_axis(a, b)
    if len(a.points) == 1:
        a, b = b, a  # every one of the operations is symmetric
    if len(b.points) == 1 and operation in ("multiply", "add"):
        return Schedule(tuple((x, operate(y, b.points[0][1])) for x, y in a.points), a.interpolation, axis)
    knots = _knots([a, b], jumps=not _stepwise(a, b))
    if operation in ("min", "max"):
        knots = _knots_with_crossings(knots, lambda x: a.value(x) - b.value(x))
    return _draw(lambda x: operate(a.value(x), b.value(x)), knots, axis, a, b)


def shift(a: Schedule, later: float) -> Schedule:
    """The same schedule, `later` on its own axis (less sigma is later). What leaves the axis is cut off."""
    move = -later if a.axis == "sigma" else later
    end = END.get(a.axis, float("inf"))
    if len(a.points) == 1:
        return a
    moved = [x + move for x, _ in a.points]
    if moved[0] >= 0 and moved[-1] <= end:
        return Schedule(tuple((x, y) for x, (_, y) in zip(moved, a.points)), a.interpolation, a.axis)
    inside = [x + move for x in _knots([a], jumps=False) if 0 <= x + move <= end]
    edges = ([0.0] if moved[0] < 0 else []) + ([end] if moved[-1] > end else [])
    return _draw(lambda x: a.value(x - move), sorted({*inside, *edges}), a.axis, a)


def reverse(a: Schedule) -> Schedule:
    """The end of the run first."""
    _percent_only("reverse", a)
    if a.interpolation != "step":
        return Schedule(tuple((1 - x, y) for x, y in a.points), a.interpolation, a.axis)
    starts = [0.0, *(1 - x for x, _ in reversed(a.points[1:]))]
    return Schedule(tuple({x: y for x, (_, y) in zip(starts, reversed(a.points))}.items()), "step", a.axis)


def concatenate(a: Schedule, b: Schedule, at: float) -> Schedule:
    """a squeezed into the run before `at`, and b squeezed into the rest."""
    _percent_only("concatenate", a, b)
    if not 0 < at < 1:
        raise ScheduleError(f"The second schedule would begin at {at:g}; it has to be between 0 and 1.")
    jumps = not _stepwise(a, b)
    first = [x * at for x in [0.0, *_knots([a], jumps)] if x * at < at - JUMP]
    second = [at + x * (1 - at) for x in [*_knots([b], jumps), 1.0] if x > 0]
    middle = [at - JUMP, at] if jumps else [at]
    return _draw(lambda x: a.value(x / at) if x < at else b.value((x - at) / (1 - at)),
                 sorted({*first, *middle, *second}), "percent", a, b)


def trace(f, knots, tolerance):
    """Points of f at the knots, and between them wherever a straight line would miss f by more than `tolerance`."""
    points = [(knots[0], f(knots[0]))]
    for end in knots[1:]:
        points += _bisect(f, *points[-1], end, f(end), tolerance)
    return points


def _bisect(f, x0, y0, x1, y1, tolerance):
    missed = max(abs(f(x0 + t * (x1 - x0)) - y0 - t * (y1 - y0)) for t in (0.25, 0.5, 0.75))
    if missed <= tolerance or x1 - x0 < 2 * JUMP:
        return [(x1, y1)]
    middle = (x0 + x1) / 2
    left = _bisect(f, x0, y0, middle, f(middle), tolerance)
    return left + _bisect(f, *left[-1], x1, y1, tolerance)


def _draw(f, knots, axis, *operands):
    if _stepwise(*operands):
        points = [(x, f(x)) for x in (reversed(knots) if axis == "sigma" else knots)]
        steps = [new for old, new in zip([None, *points], points) if old is None or old[1] != new[1]]
        return Schedule(tuple(steps), "step", axis)
    values = [f(x) for x in knots]
    tolerance = TOLERANCE * max(map(abs, [*values, max(values) - min(values)]))
    points = trace(f, knots, tolerance)
    while len(points) > max(MOST_POINTS, len(knots)):
        tolerance *= 4
        points = trace(f, knots, tolerance)
    return Schedule(tuple(points), "linear", axis)


def _stepwise(*schedules):
    return all(a.interpolation == "step" or len(a.points) == 1 for a in schedules)


def _knots(schedules, jumps):
    """Where the schedules bend and step; with `jumps`, steps have a knot on both sides."""
    knots = {x for a in schedules if len(a.points) > 1 for x, _ in a.points}
    for a in schedules:
        if jumps and a.interpolation == "step":
            knots.update([x + JUMP for x, _ in a.points[:-1]] if a.axis == "sigma" else [x - JUMP for x, _ in a.points[1:]])
    return sorted(knots) or [0.0]


def _knots_with_crossings(knots, difference):
    crossings = []
    for low, high in zip(knots, knots[1:]):
        if difference(low) * difference(high) < 0:
            rising = difference(high) > 0
            for _ in range(50):
                middle = (low + high) / 2
                low, high = (low, middle) if (difference(middle) > 0) == rising else (middle, high)
            crossings.append(round(low, 9))
    return sorted({*knots, *crossings})


def _common_axis(*schedules):
    axes = {a.axis for a in schedules if len(a.points) > 1}
    if len(axes) > 1:
        raise ScheduleError(f"The schedules are on the axes {' and '.join(sorted(axes))}; they need the same one.")
    return axes.pop() if axes else "percent"


def _percent_only(operation, *schedules):
    for a in schedules:
        if a.axis != "percent":
            raise ScheduleError(f"A schedule on the {a.axis} axis has no end to {operation} from; percent has one.")
