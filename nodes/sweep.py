"""Run what lies between values and a picture once for each cell, and what a picture cost.

The host would run a list through each node as a whole, and so through all of it again when one value changes. Here each
cell is a copy of these nodes with its values written in, so that the host keeps each on its own.
"""

from hashlib import sha1

from comfy_api.latest import io
from comfy_execution.graph_utils import is_link

from .bridge.costs import recorded
from .values import CellType


def sources(prompt, node):
    """The ids of the nodes that a node is linked to. prompt: the host's, as it runs."""
    return [value[0] for value in prompt.get_node(node)["inputs"].values() if is_link(value)]


def before(prompt, node):
    """The ids of a node and of all that it depends on."""
    found, waiting = {}, [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = True
            waiting += sources(prompt, node)
    return list(found)


def swept(prompt, node, values):
    """Of a node and those before it, the ids of those that depend on the node `values`, this node's first."""
    depends = {values: True}

    def visit(node):
        if node not in depends:
            depends[node] = False
            found = [visit(source) for source in sources(prompt, node)]  # of all of them, also behind one that does
            depends[node] = any(found)
        return depends[node]

    visit(node)
    return [id for id, does in depends.items() if does and id != values]


def written(prompt, nodes, values, cell, prefix):
    """A copy of nodes with a cell's values in place of links to the node `values`. Their ids are of the cell's values, so
    that the host finds it again wherever it stands in the list."""
    def source(value):
        if not is_link(value):
            return value
        node, output = value
        return cell[output] if node == values else [prefix + node if node in nodes else node, output]

    return {
        prefix + id: {"class_type": node["class_type"], "override_display_id": id,
                      "inputs": {name: source(value) for name, value in node["inputs"].items()}}
        for id, node in ((id, prompt.get_node(id)) for id in nodes)
    }


def uses(prompt, nodes, values):
    """The outputs of the node `values` that these nodes take."""
    links = [value for id in nodes for value in prompt.get_node(id)["inputs"].values() if is_link(value)]
    return {output for node, output in links if node == values}


class Sweep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceSweep",
            display_name="Run each cell",
            category="guidance/sweeps",
            description="Runs all nodes between Values to try and this picture once for each cell. When a value is changed or "
                        "added, only its own cells are computed again.",
            search_aliases=["sweep", "xy plot", "for each", "loop", "compare settings"],
            inputs=[
                io.Image.Input("image", lazy=True, raw_link=True, tooltip="What comes of the values, at the end."),
                CellType.Input("cell", tooltip="From Values to try."),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.String.Output(display_name="note", tooltip="What each picture cost, for Labelled sheet."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, image, cell):
        prompt, own = cls.hidden.dynprompt, cls.hidden.unique_id
        source = prompt.get_node(own)["inputs"]["cell"]
        if not is_link(image) or not is_link(source) or prompt.get_node(source[0])["class_type"] != "GuidanceValues":
            raise ValueError("GuidanceSweep: image has to be linked, and cell straight to GuidanceValues.")
        values = source[0]
        nodes = swept(prompt, image[0], values)
        cls.check(prompt, nodes, values, cell)
        prefix = f"{own}.{sha1(repr(cell[:2]).encode()).hexdigest()[:12]}."
        graph = written(prompt, nodes, values, cell, prefix)
        cost = {"class_type": "GuidanceCost", "inputs": {"image": [prefix + image[0], image[1]]}, "override_display_id": own}
        return io.NodeOutput([f"{prefix}cost", 0], [f"{prefix}cost", 1], expand={**graph, f"{prefix}cost": cost})

    @classmethod
    def check(cls, prompt, nodes, values, cell):
        """Raises ValueError where the nodes do not depend on the values, or on others too."""
        if not nodes:
            raise ValueError("GuidanceSweep: image does not depend on the values; wire them to a knob of a node before it.")
        if 1 in uses(prompt, nodes, values) and cell.second is None:
            raise ValueError("GuidanceSweep: second is empty in the values, and its output is linked.")
        others = {prompt.get_node(id)["class_type"] for id in before(prompt, nodes[0]) if id != values}
        if others & {"GuidanceValues", "GuidanceSweep"}:
            raise ValueError("GuidanceSweep: other values or another sweep lie before image; one node has two axes.")


class CostNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceCost",
            display_name="Cost of a picture",
            category="guidance/sweeps",
            description="Says what a picture cost: the rows and seconds of the samplers before it, where a guidance node is on "
                        "their MODEL wire.",
            search_aliases=["time", "timer", "stopwatch", "seconds", "rows", "benchmark"],
            inputs=[io.Image.Input("image", tooltip="Is passed on as it is.")],
            outputs=[io.Image.Output(display_name="image"), io.String.Output(display_name="note")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, image):
        prompt, own = cls.hidden.dynprompt, cls.hidden.unique_id
        # Of a sweep's cell only its own nodes: what all cells share was run for none of them.
        parent = prompt.get_parent_node_id(own)
        cost = recorded(id for id in before(prompt, own) if prompt.get_parent_node_id(id) == parent)
        return io.NodeOutput(image, "" if cost is None else str(cost))
