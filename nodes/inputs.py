"""What nodes accept: knobs that take a number or a schedule, checked in one sentence before sampling starts."""

import dataclasses
from math import isfinite

from comfy_api.latest import io

from ..guidance.schedule import Schedule, parse

ScheduleType = io.Custom("GUIDANCE_SCHEDULE")


def number(id, default, low, high, tooltip, step=0.01):
    """A number in [low, high] that may change over the run: a widget that also takes a schedule's link or text."""
    widget = io.Float.Input(id, default=default, min=low, max=high, step=step, tooltip=tooltip)
    return io.MultiType.Input(widget, types=[io.Float, ScheduleType])


def checked(inputs, knobs):
    """The knobs by name, each a finite number, a Schedule or a choice, within what its input allows."""
    return {input.id: check(input, knobs[input.id]) for input in inputs if input.id in knobs}


def check(input, value):
    widget = getattr(input, "input_override", None) or input
    if not isinstance(widget, (io.Float.Input, io.Int.Input)):
        return value
    schedulable = widget is not input
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            if not schedulable:
                raise ValueError(f"{input.id} is {value!r}; it has to be a number.") from None
            value = parse(value)
    values = [y for _, y in value.points] if isinstance(value, Schedule) else [value]
    for y in values:
        if not isfinite(y) or not widget.min <= y <= widget.max:
            raise ValueError(f"{input.id} is {y:g}; it has to be between {widget.min:g} and {widget.max:g}.")
    return value


def schema(**fields):
    """io.Schema, without the fields that an older ComfyUI does not know."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})
