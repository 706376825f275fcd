"""A workflow as the page saves it: nodes, and links that are written in three places."""

from .prompt import Source
from .table import NODES, widgets_of

ROW, HEAD = 26, 50  # pixels: of a widget or a socket, and of what is around them
OFF = {2, 4}  # modes of the page: never run, and bypassed
ENDS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


class Page:
    """One graph of the page's form. Links are lists in some and objects in others; a subgraph's inputs have the id -10."""

    def __init__(self, graph, whole, name):
        self.graph, self.whole, self.name = graph, whole, name
        self.nodes = {node["id"]: node for node in graph["nodes"]}
        self.links = {end(link, "id"): link for link in graph.get("links", []) if link}
        shown = [entry for each in every_node(whole) for entry in each.get("properties", {}).get("proxyWidgets", [])]
        self.shown = {str(entry[0]) for entry in shown if isinstance(entry, list) and entry}

    def kinds(self):
        return {id: node.get("type") for id, node in self.nodes.items()}

    def is_off(self, id):
        return self.nodes[id].get("mode", 0) in OFF

    def is_shown(self, id):
        """Whether a subgraph's node shows widgets of this one as its own."""
        return str(id) in self.shown

    def socket(self, id, name):
        """An input as the page lists it, or None."""
        return next((given for given in self.nodes[id].get("inputs") or [] if given.get("name") == name), None)

    def value(self, id, name):
        socket = self.socket(id, name)
        link = self.links.get(socket["link"]) if socket and socket.get("link") is not None else None
        if link is not None:
            return Source(end(link, "origin_id"), end(link, "origin_slot"), end(link, "id"))
        held, order = self.nodes[id].get("widgets_values") or [], widgets_of(self.nodes[id]["type"])
        if isinstance(held, dict):
            return held.get(name)
        return held[order.index(name)] if name in order and order.index(name) < len(held) else None

    def consumers(self, id):
        found = []
        for link in self.links.values():
            if (end(link, "origin_id"), end(link, "origin_slot")) == (id, 0) and end(link, "target_id") in self.nodes:
                target = self.nodes[end(link, "target_id")]
                found.append((target["id"], target["inputs"][end(link, "target_slot")]["name"]))
        return found

    def hands_on_a_model(self, id):
        return any(given.get("type") == "MODEL" for given in (self.nodes[id].get("outputs") or [])[:1])

    def become(self, id, kind, inputs):
        node, new = self.nodes[id], NODES[kind]
        old = [given["link"] for given in node.get("inputs") or [] if given.get("link") is not None]
        taken = {value.link for value in inputs.values() if isinstance(value, Source)}
        for link in old:
            if link not in taken:
                self.cut(link)
        node["type"], node["inputs"], node["widgets_values"] = kind, [], []
        for given in new["inputs"]:
            self.give(node, given, inputs.get(given["id"], given.get("default")), old)
        outgoing = (node.get("outputs") or [{}])[0].get("links") or []
        node["outputs"] = [{"name": name, "type": type, "links": outgoing if i == 0 else []}
                           for i, (name, type) in enumerate(new["outputs"])]
        node["properties"] = {"Node name for S&R": kind}
        node["size"] = [max([*listed(node.get("size")), 0][0], 300), HEAD + ROW * len(new["inputs"])]

    def give(self, node, given, value, own):
        """One input, with its value or its link; the links that the node had itself are kept."""
        entry = {"name": given["id"], "type": given["type"], "link": None}
        if given.get("widget"):
            entry["widget"] = {"name": given["id"]}
            node["widgets_values"] += [given.get("default") if isinstance(value, Source) else value]
            node["widgets_values"] += ["fixed"] if given.get("control") else []
        linked = isinstance(value, Source)
        if linked or not given.get("widget"):
            node["inputs"].append(entry)
        if linked:
            slot = len(node["inputs"]) - 1
            if value.link in own:
                put(self.links[value.link], "target_id", node["id"])
                put(self.links[value.link], "target_slot", slot)
                entry["link"] = value.link
            else:
                entry["link"] = self.tie(value, node["id"], slot, given["type"])

    def add(self, before, kind, inputs):
        """A node above another one."""
        id = 1 + max(int(node["id"]) for node in every_node(self.whole) if str(node["id"]).isdecimal())
        x, y = [*listed(self.nodes[before].get("pos")), 0, 0][:2]
        node = {"id": id, "type": kind, "pos": [x, y - HEAD - 20 - ROW * len(NODES[kind]["inputs"])], "flags": {},
                "order": self.nodes[before].get("order", 0), "mode": self.nodes[before].get("mode", 0)}
        self.nodes[id] = node
        self.graph["nodes"].append(node)
        self.become(id, kind, inputs)
        self.count("node", id)
        return id

    def set(self, id, name, value):
        if isinstance(value, Source):
            socket = self.socket(id, name)
            self.cut(socket["link"])
            slot = self.nodes[id]["inputs"].index(socket)
            socket["link"] = self.tie(value, id, slot, socket["type"])
        elif isinstance(self.nodes[id]["widgets_values"], dict):
            self.nodes[id]["widgets_values"][name] = value
        else:
            self.nodes[id]["widgets_values"][widgets_of(self.nodes[id]["type"]).index(name)] = value

    def leave_out(self, id):
        self.nodes[id]["mode"] = 4

    # ------------------------------------------------------------------------------------------------ links

    def cut(self, number):
        """Remove a link from wherever it is written."""
        link = self.links.pop(number, None)
        if link is None:
            return
        self.graph["links"].remove(link)
        self.outgoing(link).remove(number)
        target = self.nodes.get(end(link, "target_id"))
        for given in (target or {}).get("inputs") or []:
            if given.get("link") == number:
                given["link"] = None
        extra = self.graph.get("extra") or {}
        for reroute in [*extra.get("reroutes", []), *self.graph.get("reroutes", [])]:
            if number in reroute.get("linkIds", []):
                reroute["linkIds"].remove(number)
        if "linkExtensions" in extra:
            extra["linkExtensions"] = [entry for entry in extra["linkExtensions"] if entry.get("id") != number]

    def tie(self, source, target, slot, type):
        """A new link; returns its number."""
        numbers = [end(link, "id") for graph in every_graph(self.whole) for link in graph.get("links", []) if link]
        number = 1 + max(numbers, default=0)
        values = (number, source.node, source.slot, target, slot, type.split(",")[0])
        as_objects = any(isinstance(link, dict) for link in self.graph.get("links", [])) or self.graph is not self.whole
        link = dict(zip(ENDS, values)) if as_objects else list(values)
        self.links[number] = link
        self.graph.setdefault("links", []).append(link)
        self.outgoing(link).append(number)
        self.count("link", number)
        return number

    def outgoing(self, link):
        """The list in which the place that a link comes from has its number."""
        origin, slot = end(link, "origin_id"), end(link, "origin_slot")
        if origin in self.nodes:
            entry = self.nodes[origin]["outputs"][slot]
            entry["links"] = entry.get("links") or []
            return entry["links"]
        return self.graph["inputs"][slot].setdefault("linkIds", [])

    def count(self, what, number):
        """The page gives out numbers above the last one."""
        for graph in (self.graph, self.whole):
            if f"last_{what}_id" in graph:
                graph[f"last_{what}_id"] = max(graph[f"last_{what}_id"], number)
            if isinstance(graph.get("state"), dict):
                key = f"last{what.capitalize()}Id"
                graph["state"][key] = max(graph["state"].get(key, 0), number)


def every_graph(whole):
    return whole, *whole.get("definitions", {}).get("subgraphs", [])


def every_node(whole):
    return [node for graph in every_graph(whole) for node in graph["nodes"]]


def end(link, name):
    return link.get(name) if isinstance(link, dict) else link[ENDS.index(name)]


def put(link, name, value):
    link[name if isinstance(link, dict) else ENDS.index(name)] = value


def listed(pair):
    """A position or size, which old pages wrote as an object."""
    return list(pair.values()) if isinstance(pair, dict) else list(pair or [])
