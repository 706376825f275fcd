"""Example workflows as the page saves them: nodes, links and groups with their places, and what most of them share."""
import json

from .demo import PROMPTS

PROMPT = PROMPTS[0]
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
GAP, LINE, HEAD = 40, 24, 34  # pixels: between things, of a widget, of a title
RUN_LINE = 60  # what a run says below the widgets of a strategy


def is_widget(form, options):
    """Whether an input of this type has a widget, from what its node says of it."""
    return (not isinstance(form, str) or form.split(",")[0] in WIDGETS) and not options.get("forceInput")


class Canvas:
    """A workflow as the page saves it."""

    def __init__(self, known):
        self.known = known
        self.nodes, self.links, self.groups, self.reroutes, self.last_stops = [], [], [], [], []

    def add(self, kind, at, links=None, values=None, title=None, width=300, height=0):
        """A node with its title's upper left corner at (x, y). links: by input (node, output), or (node, output, number
        of the reroute that the link comes from). Returns the node."""
        values, inputs, widgets, sockets, texts = dict(values or {}), [], [], 0, 0
        types = self.known[kind].INPUT_TYPES()
        for name, (form, *more) in {**types["required"], **types.get("optional", {})}.items():
            options = more[0] if more else {}
            widget = is_widget(form, options)
            sockets += not widget
            texts += bool(options.get("multiline"))
            if widget:
                choices = form if not isinstance(form, str) else options.get("options")
                widgets.append(values.pop(name) if name in values else options.get("default", choices and choices[0]))
                widgets += ["fixed"] if options.get("control_after_generate") else []
            if form == "COMFY_AUTOGROW_V3":  # as many inputs as are linked
                inputs += [{"name": link, "label": link.rpartition(".")[2], "type": "*", "link":
                            self.link(*source, target=len(self.nodes) + 1, slot=len(inputs) + i)}
                           for i, (link, source) in enumerate((links or {}).items())]
            elif name in (links or {}):
                inputs.append({"name": name, "type": form, **({"widget": {"name": name}} if widget else {}),
                               "link": self.link(*links[name], target=len(self.nodes) + 1, slot=len(inputs))})
            elif not widget and name in types["required"]:
                raise ValueError(f"{kind} needs {name}; say in lab/workflows.py what to give it in the examples.")
        if values:
            raise ValueError(f"{kind} has no input {', '.join(values)}.")
        returned = self.known[kind].RETURN_TYPES
        names = getattr(self.known[kind], "RETURN_NAMES", None) or returned
        outputs = [{"name": name, "type": type, "links": []} for name, type in zip(names, returned)]
        ours = RUN_LINE if "MODEL" in returned and kind.startswith("Guidance") and sockets else 0
        height = height or 20 * max(sockets, len(outputs)) + LINE * (len(widgets) + 3 * texts) + 16 + ours
        return self.place(kind, at, (width, height), inputs, outputs, widgets, title)

    def note(self, at, size, text):
        return self.place("MarkdownNote", at, size, [], [], [text])

    def place(self, kind, at, size, inputs, outputs, widgets, title=None):
        node = {
            "id": len(self.nodes) + 1, "type": kind, "pos": [at[0], at[1] + HEAD], "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": 0, "inputs": inputs, "outputs": outputs,
            "properties": {} if kind == "MarkdownNote" else {"Node name for S&R": kind}, "widgets_values": widgets,
        }
        if title:
            node["title"] = title
        self.nodes.append(node)
        return node

    def link(self, node, output, stop=None, *, target, slot):
        number = len(self.links) + 1
        self.links.append([number, node["id"], output, target, slot, node["outputs"][output]["type"]])
        node["outputs"][output]["links"].append(number)
        if stop:
            self.last_stops.append({"id": number, "parentId": stop})
        while stop:
            reroute = self.reroutes[stop - 1]
            reroute["linkIds"].append(number)
            stop = reroute.get("parentId")
        return number

    def reroute(self, at, parent=None):
        """A point that links run through, after the one with the number `parent`; returns its number."""
        after = {"parentId": parent} if parent else {}
        self.reroutes.append({"id": len(self.reroutes) + 1, **after, "pos": list(at), "linkIds": []})
        return len(self.reroutes)

    def group(self, title, nodes, color="#8AA", left=None):
        """A frame around the nodes, and from `left` on; returns the y of its lower edge."""
        left = min(n["pos"][0] for n in nodes) - GAP // 2 if left is None else left
        top = min(n["pos"][1] for n in nodes) - 2 * HEAD - GAP // 2
        right = max(n["pos"][0] + n["size"][0] for n in nodes) + GAP // 2
        lower = max(n["pos"][1] + (0 if n["flags"].get("collapsed") else n["size"][1]) for n in nodes) + GAP // 2
        self.groups.append({"id": len(self.groups) + 1, "title": title, "flags": {}, "color": color, "font_size": 24,
                            "bounding": [left, top, right - left, lower - top]})
        return lower

    def text(self, scale=0.6, offset=(60, 100)):
        """As JSON, a line for each node, link and group. scale, offset: of the view that it opens with."""
        lines = lambda entries: "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]"
        view = {"scale": scale, "offset": list(offset)}
        extra = {"ds": view, "reroutes": self.reroutes, "linkExtensions": self.last_stops}
        return (f'{{"last_node_id": {len(self.nodes)}, "last_link_id": {len(self.links)},\n'
                f'"nodes": {lines(self.nodes)},\n"links": {lines(self.links)},\n"groups": {lines(self.groups)},\n'
                f'"config": {{}}, "version": 0.4,\n"extra": {json.dumps(extra)}}}\n')


def setup(canvas, top, flow=False, batch=4):
    """What all samplers of a file share, one below the other: (node, output) by name."""
    first = len(canvas.nodes)
    model = canvas.add("GuidanceDemoModel", (0, top))
    top += 180
    shared = {"model": (model, 0)}
    if flow:
        again = {"values": {"prediction": "flow"}, "title": "The same as a flow model"}
        shared["flow"] = (canvas.add("GuidanceDemoModel", (0, top), **again), 0)
        top += 180
    clip = {"clip": (model, 1)}
    prompt = canvas.add("CLIPTextEncode", (0, top), clip, {"text": PROMPT}, "Prompt", height=100)
    empty = canvas.add("CLIPTextEncode", (0, top + 180), clip, {"text": ""}, "Negative: empty", height=100)
    latent = canvas.add("EmptyLatentImage", (0, top + 360), values={"width": 32, "height": 32, "batch_size": batch})
    canvas.group("Model and prompt", canvas.nodes[first:], "#888")
    return {**shared, "positive": (prompt, 0), "negative": (empty, 0), "latent_image": (latent, 0), "vae": (model, 2),
            "clip": (model, 1)}


def sample(canvas, model, at, source, values):
    """A sampler with its picture; returns the sampler. source: from the name of an input, and its number, to its link."""
    x, y = at
    links = {name: source(name, i) for i, name in enumerate(("positive", "negative", "latent_image"))}
    values = {"sampler_name": "euler", "scheduler": "normal", **values}
    sampler = canvas.add("KSampler", at, {"model": model, **links}, values, width=280, height=262)
    decode = canvas.add("VAEDecode", (x, y + 310), {"samples": (sampler, 0), "vae": source("vae", 3)}, width=280)
    decode["flags"]["collapsed"] = True
    picture = canvas.add("PreviewImage", (x + 280 + GAP, y), {"images": (decode, 0)}, width=260, height=290)
    picture["outputs"] = []  # later ComfyUIs have one, and the files are the same from all
    return sampler
