"""Strategies side by side: each in front of a sampler of its own, and one sheet of what they make.

What the samplers share comes on rails: above each row of strategies what these take, below it what samplers take.
"""
from comfy_extras.nodes_custom_sampler import BasicScheduler, CFGGuider, KSamplerSelect, SamplerCustomAdvanced
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_toolkit import CreateList

from .canvas import BEFORE, GAP, HEAD, begun, lower_right, sampler, side_by_side

EXTRAS = {kind.__name__: kind for kind in (  # of the host's, by their ids
    PatchModelAddDownscale, CreateList, BasicScheduler, CFGGuider, KSamplerSelect, SamplerCustomAdvanced)}
UNWANTED = "Unwanted"  # the title of the prompt that negatives take
ABOVE, BELOW = ("model", "clip", UNWANTED), ("positive", "negative", "latent_image")
MOST, FOLDED = 5, 6  # columns in a row, and of those that are folded
RAIL = 12  # pixels between lines that run side by side
LEFT = 300 + 3 * GAP + (len(ABOVE) + len(BELOW)) * RAIL  # of the first strategy
ROOM = 1600  # that strategies take across
OPEN = 262  # the height of a sampler that is not folded


class Rails:
    """Lines that run down beside the strategies, and from there along their rows."""

    def __init__(self, canvas, shared):
        self.canvas, self.shared, self.trunk, self.ends, self.row = canvas, shared, {}, {}, {}

    def begin(self, names, y):
        """From here on the lines of these names run at y, each a little lower than the one before."""
        for i, name in enumerate(names):
            self.row[name] = y + RAIL * i
            self.ends.pop(name, None)

    def stop(self, name, x):
        """A link's source, for `Canvas.add`, that leaves the line of that name at x."""
        if name not in self.ends:
            turn = LEFT - GAP - RAIL * ((ABOVE + BELOW).index(name) + 1)
            self.ends[name] = self.trunk[name] = self.canvas.reroute((turn, self.row[name]), self.trunk.get(name))
        self.ends[name] = self.canvas.reroute((x, self.row[name]), self.ends[name])
        return *self.shared[name], self.ends[name]


def abreast(known, note, columns, prediction, unwanted, folded=False):
    """The workflow of these columns (see lab/demo.py), as text. unwanted: the prompt that negatives take. folded: strategies
    show only their titles."""
    negatives = any(column.negative or UNWANTED in lines(known, column.node) for column in columns)
    canvas, shared = begun(known, note, 300, (UNWANTED, unwanted) if negatives else None, prediction)
    rails, across = Rails(canvas, shared), min(len(columns), FOLDED if folded else MOST)
    width = ROOM // across - GAP if folded else 280
    first, y, latents = len(canvas.nodes), 0, []
    for start in range(0, len(columns), across):
        y, made = row(canvas, columns[start:start + across], y, width, rails, folded)
        latents += made
    canvas.group("One strategy each, before its own sampler", canvas.nodes[first:])
    first = len(canvas.nodes)
    labels = [column.title.replace(",", "") for column in columns]  # which separate labels
    size = max(across * (width + GAP), ROOM * 2 // 3) - GAP - BEFORE, 480
    side_by_side(canvas, latents, shared["vae"], labels, across, (LEFT, y + 2 * HEAD), size)
    canvas.group("Side by side", canvas.nodes[first:])
    return canvas.text()


def row(canvas, columns, y, width, rails, folded):
    """A row of columns below y: (the y below it, its samplers)."""
    rails.begin(ABOVE, y - RAIL)
    places = [LEFT + i * (width + GAP) for i in range(len(columns))]
    first = len(canvas.nodes)
    models = [strategy(canvas, column, (x, y), width, rails, folded) for column, x in zip(columns, places)]
    lower = max([y + HEAD + (0 if folded or all(models) else OPEN), *(lower_right(node)[1] for node in canvas.nodes[first:])])
    below = lower + HEAD + GAP * 3 // 4
    rails.begin(BELOW, below)
    made = [sampled(canvas, column, model, (x, y, lower), rails, folded) for column, model, x in zip(columns, models, places)]
    return below + RAIL * len(BELOW) + 2 * GAP, made


def strategy(canvas, column, at, width, rails, folded):
    """What a column's sampler takes from its strategy, (model, positive or None), or None where it has no strategy."""
    if not column.node:
        return None
    given, y = needs(canvas, column.node, at, width, rails)
    model = rails.stop("model", at[0] - GAP // 2)
    node = canvas.add(column.node, (at[0], y), {"model": model, **given}, column.inputs, column.title if folded else None,
                      width=width)
    if folded:
        node["flags"]["collapsed"] = True
    return (node, 0), (node, 1) if len(node["outputs"]) > 1 else None


def lines(known, kind):
    """{line: input} of what a strategy takes from the lines besides MODEL."""
    named = {"CLIP": "clip", "CONDITIONING": UNWANTED}
    return {named[form]: name for name, form in taken(known, kind).items() if form in named}


def taken(known, kind):
    """{input: type} of a strategy besides MODEL."""
    required = known[kind].INPUT_TYPES()["required"] if kind else {}
    return {name: form for name, (form, *_) in required.items() if name != "model"}


def needs(canvas, kind, at, width, rails):
    """What a strategy takes besides MODEL: ({input: (node, output)}, the y below the nodes that this took)."""
    x, y = at
    given = {name: rails.stop(line, x - GAP // 2) for line, name in lines(canvas.known, kind).items()}
    for name, form in taken(canvas.known, kind).items():
        if form == "GUIDANCE_CLASSIFIER":
            source = canvas.add("GuidanceDemoClassifier", at, values={"attribute": "color", "value": "green"}, width=width)
        elif form == "MODEL":
            again = canvas.folded("GuidanceDemoModel", at, values={"prediction": "eps"}, title="Loaded a second time")
            source = canvas.folded("PatchModelAddDownscale", (x, y + HEAD + GAP // 4), {"model": (again, 0)},
                                   title="Weak: half the inner resolution")
        else:
            continue
        given[name], y = (source, 0), lower_right(source)[1] + GAP
    return given, y


def sampled(canvas, column, model, place, rails, folded):
    """A column's sampler: folded below its strategy, or open where it has none."""
    x, y, lower = place
    line = lambda name: rails.stop(name, x - GAP // 2)
    own = {}
    if model and model[1]:
        own["positive"] = model[1]
    elif column.negative and not column.node:
        own["negative"] = line(UNWANTED)
    given = {name: own.get(name) or line(name) for name in BELOW}
    top = lower + GAP // 2 if model or folded else y
    node = sampler(canvas, (x, top), model[0] if model else line("model"), given, {"steps": 16, "cfg": column.cfg},
                   column.title if folded and not model else None)
    if model or folded:
        node["flags"]["collapsed"] = True
    return node
