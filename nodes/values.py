"""Values to try: a text of numbers or other texts, as the list that the host runs a workflow through."""

import re
from decimal import Decimal
from typing import Any, NamedTuple

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from .inputs import LONGEST, checked

MOST = 100  # cells: each is a run, and a picture that the host keeps
LARGEST = 2 ** 64  # seeds go up to it
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\s*\.\.\s*({NUMBER})(?:\s+by\s+({NUMBER}))?")
SWITCHES = {"true": True, "false": False}
JOINT = " · "  # between a cell's names

CellType = io.Custom("GUIDANCE_CELL")


class Cell(NamedTuple):
    """One pair of values with its label, in the order of the node's outputs. second: None where there is no second axis."""

    first: Any
    second: Any
    label: str


def read(id, text):
    """The values that a text means: numbers and ranges, true and false, or else texts, one a line.

    Whole numbers are ints, for seeds and steps, unless one is written with a point: then all are floats.
    Raises ValueError with one sentence about the input of this id.
    """
    items = [item for item in map(str.strip, re.split(r"[,\n]", text)) if item][:MOST + 1]
    if not items:
        return bounded(id, items)
    if all(re.fullmatch(NUMBER, item) or RANGE.fullmatch(item) for item in items):
        return numbers(id, items)
    if all(item.lower() in SWITCHES for item in items):
        return [SWITCHES[item.lower()] for item in bounded(id, items)]
    return bounded(id, [line for line in map(str.strip, text.splitlines()) if line])


def numbers(id, items):
    values: list[Decimal] = []
    for item in items:
        found = RANGE.fullmatch(item)
        value, end, by = (limited(id, part) for part in (found.groups("1") if found else (item, item, "1")))
        if by == 0:
            raise ValueError(f"{id} has {item[:LONGEST]!r}; what comes after by cannot be 0.")
        up = value <= end
        while (value <= end if up else value >= end) and len(values) <= MOST:
            values.append(value)
            value += abs(by) if up else -abs(by)
        bounded(id, values)
    whole = "." not in " ".join(items).replace("..", "") and all(value == int(value) for value in values)
    return [int(value) if whole else float(value) for value in values]


def limited(id, text):
    value = Decimal(text)
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{id} has {text[:LONGEST]}; numbers have to be between -2^64 and 2^64.")
    return value


def bounded(id, values):
    if not 1 <= len(values) <= MOST:
        found = "no value" if not values else f"more than {MOST} values"
        raise ValueError(f"{id} has {found}; it has to have between 1 and {MOST}.")
    return values


def cells(first, first_name="", second="", second_name=""):
    """All pairs, the first axis running fastest."""
    columns, rows = read("first", first), read("second", second) if second.strip() else [None]
    if len(columns) * len(rows) > MOST:
        raise ValueError(f"first and second make {len(columns) * len(rows)} cells; they have to be {MOST} at most.")
    return [Cell(x, y, JOINT.join(named(first_name, x) + named(second_name, y))) for y in rows for x in columns]


def named(name, value):
    """A value's part of a label, as a list; of no value it is empty."""
    if value is None:
        return []
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return [" ".join(f"{name} {text}".replace(JOINT, " ").split())[:LONGEST]]


class Values(io.ComfyNode):
    inputs = [
        io.String.Input("first", default="1, 3, 8", multiline=True, tooltip="Values for one knob: numbers (1, 3, 8 or 1..8 by "
                        "1), or texts, one a line: schedules, prompts, names from a list. Across the sheet."),
        io.String.Input("first_name", default="cfg", tooltip="What the first values are, for the labels."),
        io.String.Input("second", default="", multiline=True, tooltip="Values for another knob, down the sheet; each is tried "
                        "with each of the first. May be empty."),
        io.String.Input("second_name", default="seed", tooltip="What the second values are, for the labels."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceValues",
            display_name="Values to try",
            category="guidance/sweeps",
            description="Values for any knob of any node, or for two: wire them to the widgets. Whatever is behind them runs "
                        "once for each value, or each pair.",
            search_aliases=["sweep", "xy plot", "x/y/z plot", "grid", "list of values", "iterate", "loop", "range",
                            "compare settings", "parameter sweep", "batch of seeds"],
            inputs=cls.inputs,
            # Any type: a list of choices, such as a sampler's name, takes nothing else.
            outputs=[
                io.AnyType.Output("first", is_output_list=True, tooltip="To a knob."),
                io.AnyType.Output("second", is_output_list=True, tooltip="To another knob."),
                io.String.Output("label", is_output_list=True, tooltip="To Labelled sheet."),
                CellType.Output("cell", is_output_list=True, tooltip="To Run each cell."),
            ],
        )

    @classmethod
    def validate_inputs(cls, first=None, second=None):
        try:
            cells(**checked(cls.inputs, {"first": "0" if first is None else first, "second": second or ""}))  # None: a link
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, **knobs):
        made = cells(**checked(cls.inputs, knobs))
        first, second, label = map(list, zip(*made))
        if second[0] is None:
            second = [ExecutionBlocker("GuidanceValues: second is empty, and its output is linked.")]
        return io.NodeOutput(first, second, label, made)
