"""Old nodes replaced by ours, one after the other, by the table; what became of each is one line."""

import re
from typing import NamedTuple

from .conversions import Stays
from .graphs import graphs_of
from .old import Earlier, Old
from .prompt import Source
from .table import SAMPLERS, TABLE

SAME = "The same numbers."
LOOKING = re.compile("Scheduler|Sigmas|Save|Preview")  # nodes that take a model and do not guide it
ORDER = {"pre": 0, "cfg": 1, "post": 2}  # in which the host calls its hooks
SINGLE = {"cfg", "calc"}  # hooks for one node only
OF_THE_DIRECTION = {"GuidanceFDG", "GuidanceAutoRange", "GuidanceCFGZeroStar"}  # which scale what is there so far of guidance
OF_THE_ANSWER = {"GuidanceRescale", "GuidanceRenorm", "GuidanceMimic", "GuidanceMomentum"}  # and of the picture
UNCOND = {"CFGZeroStarAndInit", "CFGZeroStar", "PerpNeg"}  # old nodes that go by the negative itself


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
    nodes = [Old(graph, id, kind, *downstream(graph, id)) for id, kind in kinds.items()]
    for node in nodes:
        behind, before = on_the_wire(node, nodes)
        try:
            new, said = replaced(node, behind, before)
        except Stays as reason:
            new, said = (), f"It stays: {reason}."
        yield Line(node.id, node.kind, new, said, graph.name)


def replaced(node, behind, before):
    """Replace one node, if nothing speaks against it: (ids of the new ones, sentences). Raises Stays."""
    taker = next((other for other in behind if other.hook in SINGLE and other.hook == node.hook), None)
    if taker and not node.is_off:
        node.graph.leave_out(node.id)
        return (), f"It is left out: {taker.kind} behind it takes its place, so it had no effect."
    if "stays" in node.case:
        raise Stays(node.case["stays"])
    if node.graph.is_shown(node.id):
        raise Stays("a subgraph shows its widgets as its own")
    for other in (*behind, *before):
        if other.kind in node.case.get("apart", ()):
            raise Stays(f"{other.kind} is on the same wire, and each of the two would change what the other does")
    if "sampler" in node.case and node.is_off:
        raise Stays("it is switched off, and its sampler would have to change with it")
    made, edits = node.made(), node.edits()
    put_in(node, made)
    for sampler, name, value in edits:
        node.graph.set(sampler, name, value)
    company = [] if node.is_off else list(in_company(node, made, behind, before))
    same = [SAME] * (node.case.get("same", False) and not company)
    now = [f"Its sampler's cfg is {value:g} now." for _, name, value in edits if name == "cfg"]
    return tuple(new["id"] for new in node.case["to"]), " ".join([*same, *dict.fromkeys(now), *about(node), *company])


def about(node):
    return [node.case["note"]] if "note" in node.case else []


def put_in(node, made):
    """Put the new nodes in: the last one where the old one was, so that what it is linked to stays."""
    added = []
    for new, inputs in zip(node.case["to"], made):
        given = {name: Source(added[value.place], 0) if isinstance(value, Earlier) else value
                 for name, value in inputs.items() if value is not None}
        if new is node.case["to"][-1]:
            node.graph.become(node.id, new["id"], given)
        else:
            added.append(node.graph.add(node.id, new["id"], given))


# ------------------------------------------------------------------------------------------------ wires

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


def on_the_wire(node, nodes):
    """The old nodes behind and before one, those that are switched off left out."""
    acting = [other for other in nodes if not other.is_off]
    return ([other for other in acting if other.id in node.behind], [other for other in acting if node.id in other.behind])


def in_company(node, made, behind, before):
    """What is otherwise because of the other nodes on the wire: one sentence each."""
    for other in behind:
        matters = of_the_answer(node, made) or of_the_answer(other) or (other.hook == "pre" and of_the_direction(node))
        if ORDER.get(node.hook, 0) > ORDER.get(other.hook, 9) and matters:
            yield (f"{other.kind} behind it used to act before it; here the wire's order counts, so put it in front of this "
                   "one for the same numbers.")
    for other in (*before, *behind):
        first = (ORDER.get(other.hook, 9), other in behind) < (ORDER.get(node.hook, -1), other not in behind)
        edits = other.entry.get("edits") if first else None
        if edits == "cond" or (edits == "uncond" and node.kind in UNCOND):
            yield f"Other numbers beside {other.kind}, which handed it a changed prediction; here it works on the model's own."


def of_the_answer(node, made=None):
    """Whether what it becomes works on the answer so far."""
    ids = {new["id"] for new in node.case.get("to", ())}
    return bool(ids & OF_THE_ANSWER) or any(inputs.get("rescale") for inputs in made or ())


def of_the_direction(node):
    return any(new["id"] in OF_THE_DIRECTION for new in node.case.get("to", ()))
