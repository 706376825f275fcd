"""The two forms of a workflow behind one set of methods: `Page`, and the API's `Prompt`.

Nodes go by their ids as the form has them. A value is what a widget holds, a `Source`, or None where there is neither.
"""

import copy

from .page import Page
from .prompt import Prompt


class NoWorkflow(ValueError):
    """What is given is no workflow; the message is one sentence."""


def graphs_of(workflow):
    """A copy of the workflow, and its graphs: the whole, and each subgraph."""
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        made = copy.deepcopy(workflow)
        inner = made.get("definitions", {}).get("subgraphs", [])
        return made, [Page(graph, made, graph.get("name", "") if graph is not made else "") for graph in (made, *inner)]
    if isinstance(workflow, dict) and any(isinstance(node, dict) and "class_type" in node for node in workflow.values()):
        made = copy.deepcopy(workflow)
        return made, [Prompt(made)]
    raise NoWorkflow("it is neither a workflow of the page, which has nodes, nor one of the API, whose nodes have class_type")
