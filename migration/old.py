"""One old node of a workflow: its inputs and its sampler's, and what the table makes of them."""

import json
from math import isfinite
from numbers import Real
from typing import NamedTuple

from . import conversions
from .conversions import Stays
from .prompt import Source
from .table import NODES, TABLE


class Earlier(NamedTuple):
    """The output of one of the new nodes before."""
    place: int


class Old:
    """behind: the nodes behind it on its MODEL wire. samplers: where that leads to; None is one of an unknown kind."""

    def __init__(self, graph, id, kind, behind, samplers):
        self.graph, self.id, self.kind, self.behind, self.samplers = graph, id, kind, behind, samplers
        self.entry = TABLE[kind]
        fitting = (case for case in self.entry.get("cases", [self.entry]) if self.fits(case.get("if", {})))
        self.case = next(fitting, {"stays": "its settings have no counterpart"})

    @property
    def hook(self):
        return self.case.get("hook", self.entry.get("hook"))

    @property
    def is_off(self):
        return self.graph.is_off(self.id)

    def fits(self, wanted):
        return all(self.input(name) == value for name, value in wanted.items())

    def input(self, name):
        if name.startswith("sampler."):
            return self.of_sampler(name.partition(".")[2])
        value = self.graph.value(self.id, name)
        return self.entry.get("widgets", {}).get(name) if value is None else value

    def known_samplers(self):
        if not self.samplers or None in self.samplers:
            raise Stays("its wire leads to no sampler, or to one that is not known, whose settings it would need")
        return self.samplers

    def of_sampler(self, name):
        found = [self.graph.value(sampler, name) for sampler in self.known_samplers()]
        if any(place(value) != place(found[0]) for value in found):
            raise Stays(f"its samplers differ in {name}, and it would need one")
        if found[0] is None or (name == "cfg" and not isinstance(found[0], Real)):
            raise Stays(f"its sampler's {name} is {'linked' if found[0] is not None else 'missing'}, and would be needed here")
        return found[0]

    def edits(self):
        """(sampler, input, value) for what its samplers get instead."""
        return [(sampler, name, Old(self.graph, self.id, self.kind, self.behind, [sampler]).given(spec))
                for name, spec in self.case.get("sampler", {}).items() for sampler in self.known_samplers()]

    def made(self):
        """The inputs of the new nodes, in the order of the table."""
        return [{name: self.converted(new["id"], name, spec) for name, spec in new["inputs"].items()}
                for new in self.case["to"]]

    def given(self, spec):
        """What a spec of the table comes to."""
        if isinstance(spec, str):
            return self.input(spec)
        if "value" in spec:
            return spec["value"]
        if "node" in spec:
            return Earlier(spec["node"])
        names = spec["of"] if isinstance(spec["of"], list) else [spec["of"]]
        values = [self.input(name) for name in names]
        linked = [name for name, value in zip(names, values) if isinstance(value, Source)]
        if "linked" in spec:
            return spec["linked"] if linked else values[0]
        if linked:
            raise Stays(f"its {linked[0]} is linked, and would have to be converted")
        try:
            return computed(spec, values)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            raise Stays(f"its {', '.join(names)} cannot be {', '.join(repr(value)[:40] for value in values)}") from None

    def converted(self, new, name, spec):
        """An input of a new node, within what it takes."""
        value = self.given(spec)
        given = next(given for given in NODES[new]["inputs"] if given["id"] == name)
        if value is None or isinstance(value, (Source, Earlier)):
            return value
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        low, high = given.get("min"), given.get("max")
        if is_number and low is not None and not (isfinite(value) and low <= value <= high):
            raise Stays(f"{new}'s {name} would be {value:g}; it has to be between {low:g} and {high:g}")
        if "options" in given and value not in given["options"]:
            raise Stays(f"{new}'s {name} would be {str(value)[:40]!r}; it has to be one of {', '.join(given['options'])}")
        return conversions.number(value) if is_number and given["type"].startswith("STRING") else value


def computed(spec, values):
    if "plus" in spec:
        return values[0] + spec["plus"]
    if "choices" in spec:
        return spec["choices"][values[0] if isinstance(values[0], str) else json.dumps(values[0])]
    return getattr(conversions, spec["by"])(*values)


def place(value):
    return (value.node, value.slot) if isinstance(value, Source) else value
