"""Old nodes replaced by ours, one after the other, by the table; what became of each is one line."""

import json
import re
from math import isfinite
from numbers import Real
from typing import NamedTuple

from . import conversions
from .conversions import Stays
from .graphs import Source, graphs_of
from .table import NODES, SAMPLERS, TABLE

SAME = "The same numbers."
LOOKING = re.compile("Scheduler|Sigmas|Save|Preview")  # nodes that take a model and do not guide it


class Line(NamedTuple):
    """What became of one node. new: the ids of what it is now; none where it stays."""
    node: object
    old: str
    new: tuple[str, ...]
    said: str
    graph: str = ""

    def __str__(self):
        where = f"{self.graph}: {self.node}" if self.graph else f"{self.node}"
        return f"{where} {self.old}{' -> ' + ' + '.join(self.new) if self.new else ''}. {self.said}"


def migrate(workflow):
    """(the workflow with our nodes, what became of each old one). The given workflow is not changed.

    workflow: as read from JSON, in the page's form or the API's. Raises graphs.NoWorkflow.
    """
    made, graphs = graphs_of(workflow)
    return made, [line for graph in graphs for line in migrated(graph)]


def migrated(graph):
    """Replace what is to be replaced in one graph; a Line for each."""
    kinds = {id: kind for id, kind in graph.kinds().items() if isinstance(kind, str) and kind in TABLE}
    wires = {id: downstream(graph, id) for id in kinds}
    for id, kind in kinds.items():
        try:
            later = [other for other in wires[id][0] if other in kinds and not graph.is_off(other)]
            new, said = one(graph, id, kind, later, wires[id][1], kinds)
        except Stays as reason:
            new, said = (), f"It stays: {reason}."
        yield Line(id, kind, new, said, graph.name)


def one(graph, id, kind, later, samplers, kinds):
    """Replace one node. later: the old ones behind it on the wire; samplers: where the wire ends. Returns (ids, sentence)."""
    entry = TABLE[kind]
    node = Old(graph, id, entry, samplers)
    case = next((case for case in entry.get("cases", [entry]) if node.fits(case.get("if", {}))), None)
    taken = next((kinds[other] for other in later if slot(kinds[other]) is not None and slot(kinds[other]) == slot(kind)), None)
    if taken and not graph.is_off(id):
        graph.leave_out(id)
        return (), f"It is left out: {taken} behind it takes its place, so it had no effect."
    if case is None or "stays" in case:
        raise Stays(case["stays"] if case else "its settings have no counterpart")
    if graph.is_shown(id):
        raise Stays("a subgraph shows its widgets as its own")
    if case.get("alone") and any(kinds[other] == kind for other in (*later, *before(graph, id, kinds))):
        raise Stays(f"there are several {kind} on this wire, of which each is in force for its part")
    if "sampler" in case and graph.is_off(id):
        raise Stays("it is switched off, and its sampler would have to change with it")
    made = [{name: node.converted(new["id"], name, spec) for name, spec in new["inputs"].items()} for new in case["to"]]
    edits = [(sampler, name, node.at_sampler(sampler).given(spec)) for name, spec in case.get("sampler", {}).items()
             for sampler in node.known_samplers()]
    place(graph, id, case["to"], made)
    for sampler, name, value in edits:
        graph.set(sampler, name, value)
    ids = tuple(new["id"] for new in case["to"])
    raised = [f"Its sampler's cfg is {value:g} now." for _, name, value in edits if name == "cfg"]
    return ids, " ".join([*[SAME] * case.get("same", False), *dict.fromkeys(raised), *filter(None, [case.get("note")])])


def place(graph, id, to, made):
    """Put the new nodes in: the last one where the old one was, so that what it is linked to stays."""
    added = []
    for new, inputs in zip(to, made):
        inputs = {name: Source(added[value.place], 0) if isinstance(value, Earlier) else value for name, value in inputs.items()}
        if new is to[-1]:
            graph.become(id, new["id"], {name: value for name, value in inputs.items() if value is not None})
        else:
            added.append(graph.add(id, new["id"], {name: value for name, value in inputs.items() if value is not None}))


def slot(kind):
    return TABLE[kind].get("slot")


def downstream(graph, id):
    """(the nodes behind one on its MODEL wire, the samplers that it leads to; None among these is one of an unknown kind)"""
    seen, samplers, todo, kinds = [], [], [id], graph.kinds()
    while todo:
        for other, _ in graph.consumers(todo.pop()):
            kind = str(kinds.get(other))
            if kind in SAMPLERS:
                samplers.append(other)
            elif graph.hands_on_a_model(other):
                if other not in seen:
                    seen.append(other)
                    todo.append(other)
            elif not LOOKING.search(kind):
                samplers.append(None)
    return seen, list(dict.fromkeys(samplers))


def before(graph, id, kinds):
    """The old nodes whose wire leads through this one."""
    return [other for other in kinds if other != id and id in downstream(graph, other)[0]]


class Earlier(NamedTuple):
    """The output of one of the new nodes before."""
    place: int


class Old:
    """An old node's inputs, by their ids there, and those of its sampler."""

    def __init__(self, graph, id, entry, samplers):
        self.graph, self.id, self.entry, self.samplers = graph, id, entry, samplers

    def at_sampler(self, sampler):
        return Old(self.graph, self.id, self.entry, [sampler])

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
        if any(plain(value) != plain(found[0]) for value in found):
            raise Stays(f"its samplers differ in {name}, and it would need one")
        if found[0] is None or (name == "cfg" and not isinstance(found[0], Real)):
            raise Stays(f"its sampler's {name} is {'linked' if found[0] is not None else 'missing'}, and would be needed here")
        return found[0]

    def fits(self, wanted):
        return all(self.input(name) == value and not isinstance(self.input(name), Source) for name, value in wanted.items())

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
            if "plus" in spec:
                return values[0] + spec["plus"]
            if "choices" in spec:
                key = values[0] if isinstance(values[0], str) else json.dumps(values[0])
                return spec["choices"][key]
            return getattr(conversions, spec["by"])(*values)
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
            raise Stays(f"{new}'s {name} would be {value!r}; it has to be one of {', '.join(given['options'])}")
        return conversions.number(value) if is_number and given["type"].startswith("STRING") else value


def plain(value):
    return (value.node, value.slot) if isinstance(value, Source) else value
