"""What runs cost, by the node that sampled: for the prompt that the host is executing, and nothing of those before it.

Here it only waits for the node that tells it. That node's output is what lasts: the host keeps and forgets it with the picture,
so that a cell which is not computed again still says what it cost, and none says what another one did.
"""

from typing import NamedTuple

from comfy_execution.utils import get_executing_context


class Cost(NamedTuple):
    """rows: for each picture, in all steps."""

    rows: int
    seconds: float

    def __add__(self, other):
        return Cost(self.rows + other.rows, self.seconds + other.seconds)

    def __str__(self):
        return f"{self.rows} row{'s' * (self.rows != 1)}, {self.seconds:.2f} s"


_COSTS: dict[str, dict[str, list[Cost]]] = {}  # by prompt, of which it holds one; by node: one of each item of its lists


def record(rows, seconds):
    """Of a run that has ended, on behalf of the node that the host is executing, if it is."""
    here = get_executing_context()
    if here is None:
        return
    if here.prompt_id not in _COSTS:
        _COSTS.clear()
    costs = _COSTS.setdefault(here.prompt_id, {}).setdefault(here.node_id, [])
    place = here.list_index or 0
    costs += [Cost(0, 0.0)] * (place + 1 - len(costs))
    costs[place] += Cost(rows, seconds)


def recorded(nodes):
    """What these nodes have cost in the present prompt for the present item of a list; None where none has sampled."""
    here = get_executing_context()
    costs = _COSTS.get(here.prompt_id, {}) if here is not None else {}
    found = [costs[node] for node in nodes if node in costs]
    # Of a shorter list the last one counts for the others, as everywhere in the host.
    return sum((cost[min(here.list_index or 0, len(cost) - 1)] for cost in found), Cost(0, 0.0)) if found else None
