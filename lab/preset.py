"""`python lab preset FAMILY`: what Guidance for this model sets up, as ordinary nodes in ComfyUI's API format.

The chain begins at the node "model" and takes its negative from "negative", both of which are yours.
"""
import json
import sys

from ..nodes.attention import NAG
from ..nodes.families import families
from ..nodes.model_preset import CHAINED, with_defaults


def chain(family, style):
    """{id: node} in the order of the wire."""
    graph, model = {}, ["model", 0]
    for number, (kind, given, _) in enumerate(family.setup(style).nodes, 1):
        links = {"model": model, **({"negative": ["negative", 0]} if kind == NAG.node_id else {})}
        model = [f"guidance {number}", 0]
        graph[model[0]] = {"class_type": kind, "inputs": {**links, **with_defaults(CHAINED[kind], given)},
                           "_meta": {"title": CHAINED[kind].title}}
    return graph


def report(name, style):
    """Print the chain. Ends with one sentence where there is no such family, or no such style for it."""
    family = families().get(name)
    if family is None:
        sys.exit(f"There is no family {name[:60]!r}; there is {', '.join(families())}.")
    if style not in family.offered:
        sys.exit(f"{style} is not offered for {name}; there is {', '.join(family.offered)}.")
    print(json.dumps(chain(family, style), indent=2, ensure_ascii=False))
