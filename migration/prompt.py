"""A workflow as programs send it: {id: {"class_type", "inputs"}}, where a link is [id, output]."""

from typing import NamedTuple

from .table import NODES


class Source(NamedTuple):
    """What an input is linked to; link: the page's number of that link."""
    node: object
    slot: int
    link: object = None


class Prompt:
    """The API's form: {id: {"class_type", "inputs"}}."""

    name = ""

    def __init__(self, nodes):
        self.nodes = nodes

    def kinds(self):
        return {id: node["class_type"] for id, node in self.nodes.items()
                if isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs", {}), dict)}

    def is_off(self, id):
        return False

    def is_shown(self, id):
        return False

    def value(self, id, name):
        given = self.nodes[id].get("inputs", {}).get(name)
        return Source(given[0], given[1]) if isinstance(given, list) and len(given) == 2 else given

    def consumers(self, id):
        """(node, input) of those that take its first output."""
        found = []
        for other, node in self.nodes.items():
            inputs = node.get("inputs") if isinstance(node, dict) else None
            for name, given in inputs.items() if isinstance(inputs, dict) else ():
                if isinstance(given, list) and given[:2] == [id, 0]:
                    found.append((other, name))
        return found

    def hands_on_a_model(self, id):
        """Whether its first output is a model, which this form tells only by who takes it."""
        return any(name.startswith("model") for _, name in self.consumers(id))

    def become(self, id, kind, inputs):
        before = self.nodes[id]
        meta = {"_meta": {**before["_meta"], "title": NODES[kind]["title"]}} if "_meta" in before else {}
        filled = {given["id"]: given["default"] for given in NODES[kind]["inputs"] if "default" in given}
        filled |= {name: [value.node, value.slot] if isinstance(value, Source) else value for name, value in inputs.items()}
        self.nodes[id] = {**before, "class_type": kind, "inputs": filled, **meta}

    def add(self, before, kind, inputs):
        id = str(1 + max((int(id) for id in self.nodes if id.isdecimal()), default=0))
        self.nodes[id] = {"class_type": kind, "inputs": {}, "_meta": {}}
        self.become(id, kind, inputs)
        return id

    def set(self, id, name, value):
        self.nodes[id]["inputs"][name] = [value.node, value.slot] if isinstance(value, Source) else value

    def leave_out(self, id):
        """Take a node off its MODEL wire."""
        source = self.nodes.pop(id)["inputs"]["model"]
        for node in self.nodes.values():
            for name, given in node.get("inputs", {}).items():
                if given == [id, 0]:
                    node["inputs"][name] = list(source)
