"""The menu of schedules: drawn, ready-made, combined, and looked at."""

from dataclasses import replace
from math import isclose

import comfy.samplers
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..guidance.core import Timeline
from ..guidance.presets import PRESETS
from ..guidance.presets import preset as ready_made
from ..guidance.schedule import Schedule, parse
from ..guidance.schedule_math import POINTWISE, combine, concatenate, reverse, shift
from .bridge.noise_levels import percent_of
from .checked import Checked
from .inputs import MODEL, ScheduleType, number, used_when
from .plot import plot

LOW, HIGH = -1000.0, 1000.0


class ScheduleNode(Checked):
    """A node that makes a schedule, and its text for whoever wants to keep it."""

    node_id: str
    title: str
    about: str
    aliases: list[str]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=cls.node_id,
            display_name=cls.title,
            category="guidance/schedules",
            description=cls.about,
            search_aliases=cls.aliases,
            inputs=cls.inputs,
            outputs=[ScheduleType.Output(display_name="schedule"), io.String.Output(display_name="text")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **knobs):
        made = cls.make(**cls.check(knobs))
        return io.NodeOutput(replace(made, source=getattr(cls.hidden, "unique_id", None)), str(made))

    @classmethod
    def make(cls, **knobs) -> Schedule:
        raise NotImplementedError


class Drawn(ScheduleNode):
    node_id = "GuidanceSchedule"
    title = "Guidance schedule"
    about = (
        "A number that changes over the run, drawn as a curve: wire it to the scale of a guidance node. Drag points, "
        "click to add one, right-click to remove one. The text below the curve is the same schedule, to copy and to "
        "type."
    )
    aliases = ["cfg curve", "cfg schedule", "schedule editor", "curve editor", "keyframes", "dynamic cfg"]
    inputs = [
        io.String.Input("schedule", default="0:7.5, 0.5:6, 1:1", tooltip="position:value, ... and then, if wanted, "
                        "linear, smooth or step, and percent, sigma or steps. A number alone is a constant."),
    ]

    @classmethod
    def validate_inputs(cls, schedule=None):
        try:
            if schedule is not None:
                parse(cls.check({"schedule": schedule})["schedule"])
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def make(cls, schedule):
        return parse(schedule)


class Preset(ScheduleNode):
    node_id = "GuidanceSchedulePreset"
    title = "Guidance schedule preset"
    about = (
        "A ready-made course for a guidance scale. Increasing ones (linear up, cosine up) gave better pictures than a "
        "constant in their paper; interval guides in the middle only and saves the rest. Those from linear to "
        "low-high-low, and beta, have the mean that you give."
    )
    aliases = ["cfg scheduler", "linear", "cosine", "clamp-linear", "powered cosine", "interval", "beta cfg",
               "exponential"]
    inputs = [
        io.Combo.Input("preset", options=PRESETS, default="linear up", tooltip="Its shape over the run."),
        io.Float.Input("scale", default=7.5, min=LOW, max=HIGH, step=0.1, tooltip="The mean over the run; where powered cosine "
                       "ends, where exponential begins, and interval's value inside."),
        io.Float.Input("off", default=1.0, min=LOW, max=HIGH, step=0.1, display_name="off value",
                       **used_when(preset=[name for name in PRESETS if name != "constant"]),
                       tooltip="The value that does nothing: 1 for a cfg, 0 "
                       "for PAG and everything else that is added."),
        io.Float.Input("floor", default=3.0, min=LOW, max=HIGH, step=0.1, **used_when(preset=["clamp-linear"]),
                       tooltip="clamp-linear is never less than this."),
        io.Float.Input("power", default=4.0, min=0.1, max=20.0, step=0.1, **used_when(preset=["powered cosine"]),
                       tooltip="powered cosine: higher rises later."),
        io.Float.Input("rate", default=0.693, min=-5.0, max=5.0, step=0.001, **used_when(preset=["exponential"]),
                       tooltip="exponential: grows by e to this; 0.693 "
                       "doubles."),
        io.Float.Input("a", default=2.0, min=1.0, max=20.0, step=0.1, display_name="a (begins later)",
                       **used_when(preset=["beta"]), tooltip="beta: the larger, the later guidance begins."),
        io.Float.Input("b", default=3.0, min=1.0, max=20.0, step=0.1, display_name="b (ends earlier)",
                       **used_when(preset=["beta"]), tooltip="beta: the larger, the earlier guidance ends."),
        io.Float.Input("sigma_high", default=5.42, min=0.0, max=1000.0, step=0.01, round=False,
                       **used_when(preset=["interval"]), tooltip="interval: guides from "
                       "this noise level (included). 5.42 is for SD and SDXL; flow models: try 0.84."),
        io.Float.Input("sigma_low", default=0.28, min=0.0, max=1000.0, step=0.01, round=False,
                       **used_when(preset=["interval"]), tooltip="interval: down to this "
                       "one. 0.28 is for SD and SDXL; flow models: try 0.22."),
    ]

    @classmethod
    def make(cls, preset, **knobs):
        return ready_made(preset, **knobs)


class Math(ScheduleNode):
    node_id = "GuidanceScheduleMath"
    title = "Guidance schedule math"
    about = (
        "Two schedules into one: multiply, add, the smaller or larger at each moment (same axis), or one after the "
        "other; or one schedule moved later, or reversed. Turns ComfyUI's curves, which run from 0 to 1, into scales."
    )
    aliases = ["multiply schedule", "combine schedules", "reverse schedule", "shift schedule"]
    inputs = [
        io.Combo.Input("operation", options=[*POINTWISE, "shift", "reverse", "concatenate"], default="multiply",
                       tooltip="The first four take a and b at each moment; concatenate runs a, then b; the others use "
                       "a."),
        number("a", 1.0, LOW, HIGH, "A number, a schedule, a curve, or a list with a number for each step."),
        number("b", 1.0, LOW, HIGH, "The second one. shift and reverse do not use it.",
               **used_when(operation=[*POINTWISE, "concatenate"])),
        io.Float.Input("amount", default=0.5, min=LOW, max=HIGH, step=0.01,
                       **used_when(operation=["shift", "concatenate"]), tooltip="shift: how much later, in the unit of the "
                       "schedule's axis. concatenate: where b begins, 0 to 1."),
    ]

    @classmethod
    def make(cls, operation, a, b, amount):
        a, b = _schedule(a), _schedule(b)
        if operation == "shift":
            return shift(a, amount)
        if operation == "reverse":
            return reverse(a)
        if operation == "concatenate":
            return concatenate(a, b, amount)
        return combine(operation, a, b)


class Preview(Checked):
    inputs = [
        number("schedule", 7.5, LOW, HIGH, "A schedule, or what stands for one."),
        MODEL,
        io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, tooltip="The KSampler's."),
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="The KSampler's."),
        io.Float.Input("denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="The KSampler's."),
        io.Float.Input("off", default=1.0, min=LOW, max=HIGH, step=0.1, display_name="off value",
                       tooltip="The value that does nothing, and costs "
                       "nothing: 1 for a cfg, 0 for PAG and everything else that is added."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceSchedulePreview",
            display_name="Guidance schedule preview",
            category="guidance/schedules",
            description="Draws a schedule over the real steps of a run: the value used at each, its percent and sigma, "
                        "and how many rows guidance takes. Runs no model.",
            search_aliases=["plot schedule", "show schedule", "sigmas", "cfg plot"],
            inputs=cls.inputs,
            outputs=[io.Image.Output()],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **knobs):
        schedule, model, scheduler, steps, denoise, off = cls.check(knobs).values()
        schedule = _schedule(schedule)
        timeline = timeline_of(model, scheduler, steps, denoise)
        moments = timeline.moments(off)
        values = [schedule(moment) for moment in moments]
        picture = plot(str(schedule), caption(values, off), moments, values, between(schedule, timeline, off), off)
        image = torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def timeline_of(model, scheduler, steps, denoise):
    """The run that a KSampler with these settings makes."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, int(steps / denoise))[-(steps + 1):]
    return Timeline(tuple(sigmas.tolist()), percent=percent_of(sampling))


def caption(values, off):
    steps, on = len(values), sum(not isclose(value, off) for value in values)
    return (f"Guided at {on} of {steps} steps: {steps + on} rows, {steps - on} fewer than a constant's {2 * steps}, "
            f"{on} more than no guidance.")


def between(schedule, timeline, off, parts=12):
    """The curve from step to step: (step, value) at sigmas that fall evenly, as factors, in between."""
    sigmas = timeline.sigmas[:-1]
    line = [(i + k / parts, sigmas[i] * (sigmas[i + 1] / sigmas[i]) ** (k / parts))
            for i in range(len(sigmas) - 1) for k in range(parts)]
    line.append((len(sigmas) - 1, sigmas[-1]))
    return [(step, schedule(timeline.moment(sigma, off))) for step, sigma in line]


def _schedule(value):
    return value if isinstance(value, Schedule) else Schedule(((0.0, float(value)),))


SCHEDULES = [Drawn, Preset, Math, Preview]
