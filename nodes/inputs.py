"""What nodes accept: knobs that take a number or a schedule, checked in one sentence before sampling starts."""

from collections.abc import Callable, Sequence
from math import inf, isfinite
from numbers import Real
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..guidance.schedule import Schedule, ScheduleError, parse, per_step

ScheduleType = io.Custom("GUIDANCE_SCHEDULE")
ClassifierType = io.Custom("GUIDANCE_CLASSIFIER")
ProbeType = io.Custom("GUIDANCE_PROBE")
CurveType = io.Custom("CURVE")  # ComfyUI's own curves, from 0.18 on
SCHEDULE_TYPES = [ScheduleType, CurveType]
# What comes by a link. In its place a program may have written a value, which the host hands on as it is.
LINKS: dict[str, Callable[[Any], bool]] = {
    "MODEL": lambda value: isinstance(value, ModelPatcher),
    "CLIP": lambda value: hasattr(value, "tokenize"),
    "CLIP_VISION": lambda value: hasattr(value, "encode_image"),
    "VAE": lambda value: hasattr(value, "decode"),
    "CONDITIONING": lambda value: isinstance(value, list) and all(
        isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], dict) for entry in value),
    "LATENT": lambda value: isinstance(value, dict) and hasattr(value.get("samples"), "shape"),
    "IMAGE": lambda value: isinstance(value, torch.Tensor),
    "SAMPLER": lambda value: hasattr(value, "sample"),
    "GUIDANCE_CLASSIFIER": callable,
}
MODEL = io.Model.Input("model")
LONGEST = 60  # characters of a wrong value that a sentence quotes
MENU = 300  # and of the choices that there are


def number(id, default, low, high, tooltip, step=0.01, **more):
    """A number in [low, high] that may change over the run: a widget that also takes the link of a schedule, or of its
    text."""
    widget = io.Float.Input(id, default=default, min=low, max=high, step=step, tooltip=tooltip, **more)
    return io.MultiType.Input(widget, types=[io.Float, io.String, *SCHEDULE_TYPES])


def used_when(**choices):
    """For an input that matters only where another one, by its id, is one of these choices: the page hides it elsewhere
    (web/js/used.js). Values stay what they are, and the API takes them as ever."""
    return {"extra_dict": {"guidance": {"used_when": choices}}}


def choices_by(**choices):
    """For a list of choices of which only some go with each choice of another one: {that choice: [these]}."""
    return {"extra_dict": {"guidance": {"choices_by": choices}}}


def strength(tooltip="How much of the effect to apply. 0 is off."):
    return number("strength", 1.0, 0.0, 1.0, tooltip)


def percentile(default):
    return io.Float.Input("percentile", default=default, min=0.5, max=1.0, step=0.001, round=0.00001,
                          tooltip="The share of values that is left unclipped. 1 clips none and only shrinks.")


def window(tooltip, start=0.0, end=1.0, optional=False):
    """Three inputs that say when, in the order of guidance.Window."""
    return [
        io.Float.Input("start", default=start, min=0.0, max=1000.0, step=0.01, tooltip=f"{tooltip} from here "
                       f"(included).", optional=optional),
        io.Float.Input("end", default=end, min=0.0, max=1000.0, step=0.01, tooltip=f"{tooltip} until here.",
                       optional=optional),
        io.Combo.Input("unit", options=["percent", "sigma"], default="percent", display_name="unit of start and end",
                       optional=optional, tooltip="percent runs from 0 (all noise) to 1 (none); sigma falls from the model's "
                       "highest to 0."),
    ]


def checked(inputs, knobs):
    """The knobs by name, each a finite number, a Schedule or a choice, within what its input allows."""
    return {input.id: check(input, knobs[input.id]) for input in inputs if input.id in knobs}


def check(input, value):
    """One knob as recipes take it. Raises ValueError with one sentence that names it."""
    widget = getattr(input, "input_override", None) or input
    schedulable = widget is not input
    if value is None and input.optional and getattr(widget, "default", None) in (None, ""):  # which means something
        return value
    if isinstance(widget, io.Combo.Input):
        allowed = [str(option) for option in widget.options or []]
        if not isinstance(value, str) or value not in allowed:
            named = ", ".join(allowed)
            raise wrong(input, value, f"one of {named}" if len(named) < MENU else f"on its menu, as {allowed[0]} is")
    elif isinstance(widget, io.Boolean.Input):
        if value not in (True, False):
            raise wrong(input, value, "true or false")
    elif isinstance(widget, io.String.Input) and (isinstance(value, str) or not schedulable):
        if not isinstance(value, str):
            raise wrong(input, value, "a text")
    elif isinstance(widget, (io.Float.Input, io.Int.Input)):
        return in_range(input, widget, as_number(input, value, schedulable))
    elif schedulable:
        return as_number(input, value, schedulable)
    elif not LINKS.get(input.get_io_type(), lambda value: True)(value):
        raise wrong(input, value, f"linked to a {input.get_io_type()}")
    return value


def as_number(input, value, schedulable):
    """A number, or a Schedule where there may be one: from numbers, texts, lists and ComfyUI's curves."""
    allowed = "a number or a schedule" if schedulable else "a number"
    if schedulable:
        try:
            value = as_schedule(value)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError):
            raise wrong(input, value, allowed) from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            if not schedulable:
                raise wrong(input, value, allowed) from None
            return text_schedule(input, value)
    if isinstance(value, Schedule) and schedulable:
        return value
    if isinstance(value, bool):
        return int(value)  # as the host takes it where there may be no schedule
    if not isinstance(value, Real):
        raise wrong(input, value, allowed)
    return value


def text_schedule(input, text):
    """The Schedule that a text means; what is wrong with it is said of the input."""
    try:
        return parse(text)
    except ScheduleError as error:
        raise ValueError(f"{input.id}: {error}") from None


def in_range(input, widget, value):
    low = -inf if widget.min is None else widget.min
    high = inf if widget.max is None else widget.max
    for y in [y for _, y in value.points] if isinstance(value, Schedule) else [value]:
        if not low <= y <= high or (isinstance(y, float) and not isfinite(y)):
            raise wrong(input, y, f"between {widget.min:g} and {widget.max:g}")
    return value


def wrong(input, value, allowed):
    """The one sentence about a value that an input does not take."""
    try:
        found = f"{value:g}" if isinstance(value, float) else repr(value)
    except (ValueError, TypeError):  # a number too long to write
        found = f"a {type(value).__name__}"
    if len(found) > LONGEST:
        found = f"{found[:LONGEST]}..."
    return ValueError(f"{input.id} is {found}; it has to be {allowed}.")


def as_schedule(value):
    """ComfyUI's curves and lists of numbers as Schedules; numbers, texts and Schedules as they are."""
    if isinstance(value, dict) and "points" in value:  # a curve's widget
        interpolation = value.get("interpolation")
        return Schedule(_one_each(value["points"]), "linear" if interpolation == "linear" else "smooth")
    if hasattr(value, "interp") and hasattr(value, "points"):  # a curve's link
        if type(value).__name__ in ("LinearCurve", "MonotoneCubicCurve"):
            return Schedule(_one_each(value.points), "linear" if type(value).__name__ == "LinearCurve" else "smooth")
        return Schedule(tuple((i / 100, value.interp(i / 100)) for i in range(101)))
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return per_step([float(y) for y in value])
    return value


def _one_each(points):
    return tuple({min(max(float(x), 0.0), 1.0): float(y) for x, y in points}.items())
