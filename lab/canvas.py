"""Example workflows as the page saves them: nodes, links and groups with their places, and what most of them share."""
import json

from .demo import PROMPTS

PROMPT = PROMPTS[0]
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
GAP, LINE, HEAD = 40, 24, 34  # pixels: between things, of a widget, of a title
RUN_LINE = 60  # what a run says below the widgets of a strategy
SAMPLED = ("positive", "negative", "latent_image", "seed")  # what a sampler is given besides its model
BEFORE = 230  # pixels that a folded node takes at most
LISTED = 10  # inputs that the host's Create List has at most
WINDOW, FILLED = (1600, 900), 0.75  # a browser's pixels, and the share of them that the page gives a workflow that it opens


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

    def folded(self, *given, **named):
        """As `add`, but only its title shows."""
        node = self.add(*given, **named)
        node["flags"]["collapsed"] = True
        return node

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

    def group(self, title, nodes, color="#8AA"):
        """A frame around the nodes; returns the y of its lower edge."""
        left = min(n["pos"][0] for n in nodes) - GAP // 2
        top = min(n["pos"][1] for n in nodes) - 2 * HEAD - GAP // 2
        right, lower = (max(corner) + GAP // 2 for corner in zip(*map(lower_right, nodes)))
        self.groups.append({"id": len(self.groups) + 1, "title": title, "flags": {}, "color": color, "font_size": 24,
                            "bounding": [left, top, right - left, lower - top]})
        return lower

    def view(self):
        """(scale, offset) with which all nodes are in view, as the page chooses them where it opens a template."""
        corners = [(*node["pos"], *lower_right(node)) for node in self.nodes]
        left, top, right, lower = (pick(column) for pick, column in zip((min, min, max, max), zip(*corners)))
        left, top, right, lower = left - 10, top - 40, right + 10, lower + 10
        scale = min(FILLED * room / size for room, size in zip(WINDOW, (right - left, lower - top)))
        return scale, [(room / scale - low - high) / 2 for room, low, high in zip(WINDOW, (left, top), (right, lower))]

    def text(self):
        """As JSON, a line for each node, link and group."""
        lines = lambda entries: "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]"
        scale, offset = self.view()
        view = {"scale": round(scale, 3), "offset": [round(x) for x in offset]}
        extra = {"ds": view, "reroutes": self.reroutes, "linkExtensions": self.last_stops}
        return (f'{{"last_node_id": {len(self.nodes)}, "last_link_id": {len(self.links)},\n'
                f'"nodes": {lines(self.nodes)},\n"links": {lines(self.links)},\n"groups": {lines(self.groups)},\n'
                f'"config": {{}}, "version": 0.4,\n"extra": {json.dumps(extra)}}}\n')


def lower_right(node):
    x, y = node["pos"]
    width, height = (160, 0) if node["flags"].get("collapsed") else node["size"]
    return x + width, y + height


def begun(known, text, height, third=None, prediction="v", prompt=PROMPT, **knobs):
    """(canvas, what its samplers share) with a note of this height and the model below it. third: (title, text) of another
    prompt. What is shared is (node, output) by name; the third prompt's name is its title. knobs: more of the model's."""
    canvas = Canvas(known)
    canvas.note((0, 0), (300, height), text)
    y, first = height + 3 * HEAD + GAP // 2, len(canvas.nodes)
    model = canvas.add("GuidanceDemoModel", (0, y), values={"prediction": prediction, **knobs})
    shared = {"model": (model, 0), "clip": (model, 1), "vae": (model, 2)}
    y += 170
    for name, title, text in (("positive", "Prompt", prompt), ("negative", "Negative: empty", ""),
                              *([(third[0], *third)] if third else [])):
        shared[name] = (canvas.add("CLIPTextEncode", (0, y), {"clip": (model, 1)}, {"text": text}, title, height=80), 0)
        y += 136
    latent = canvas.add("EmptyLatentImage", (0, y), values={"width": 32, "height": 32, "batch_size": 1})
    canvas.group("Model and prompt", canvas.nodes[first:], "#888")
    return canvas, {**shared, "latent_image": (latent, 0)}


def sampler(canvas, at, model, given, values, title=None):
    """A sampler. given: where its prompts and its latent come from, by name."""
    links = {"model": model, **{name: source for name, source in given.items() if name in SAMPLED}}
    values = {"sampler_name": "euler", "scheduler": "normal", **values}
    return canvas.add("KSampler", at, links, values, title, width=280, height=262)


def listed(canvas, nodes, at, title, output=0):
    """The node of a list of these nodes' outputs. It is folded; where they are many, another one below it has the first."""
    sources, (x, y) = [(node, output) for node in nodes], at
    if len(nodes) > LISTED:
        rest = len(nodes) - LISTED + 1
        sources = [(listed(canvas, nodes[:-rest], (x, y + 100), title, output), 0), *sources[-rest:]]
    return canvas.folded("CreateList", at, {f"inputs.input{i}": source for i, source in enumerate(sources)}, title=title)


def side_by_side(canvas, latents, vae, labels, columns, at, size, below=False):
    """From what several samplers made to one sheet of pictures, which is below the folded nodes before it, or beside them."""
    x, y = at
    place, sheet = ((x + BEFORE, y), (x, y + 50)) if below else ((x, y + 50), (x + BEFORE, y))
    decoded = canvas.folded("VAEDecode", place, {"samples": (listed(canvas, latents, at, "All of them"), 0), "vae": vae})
    canvas.add("GuidanceGrid", sheet, {"images": (decoded, 0)}, {"labels": ", ".join(labels), "columns": columns},
               width=size[0], height=size[1])
