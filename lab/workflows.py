"""`python lab workflows`: the example workflows, drawn from the menu, so that every strategy has a place in one.

A strategy is shown in the file of its theme, which follows from where it stands in nodes/, with its defaults and one
sampler. SETTINGS are for those that show more at other values.
"""
from pathlib import Path
from typing import NamedTuple

from comfy_extras.nodes_custom_sampler import BasicScheduler, CFGGuider, KSamplerSelect, SamplerCustomAdvanced
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_toolkit import CreateList

from ..nodes import STRATEGIES
from . import sheets
from .canvas import GAP, HEAD, PROMPT, Canvas, sample, setup
from .demo import COLUMNS, classes, unwanted

FOLDER = Path(__file__).parent.parent / "example_workflows"
RAIL = 12  # pixels between lines that run side by side
EXTRAS = {kind.__name__: kind for kind in (  # of the host's, by their ids
    PatchModelAddDownscale, CreateList, BasicScheduler, CFGGuider, KSamplerSelect, SamplerCustomAdvanced)}


class Theme(NamedTuple):
    """A file of examples. homes: the files of nodes/ whose strategies it shows; None: all that no other theme has."""
    title: str
    homes: tuple | None
    cfg: float
    text: str


THEMES = {
    "demo": Theme("The demo", None, 8.0, f"""\
Each group is the same model, prompt and seed with another strategy on the MODEL wire. Press **Run**: 32 x 32 pixels on
the bundled model take less than a second each, on a CPU.

- **off** shows what the model knows without guidance.
- **CFG 3** follows the prompt, and **CFG 8** burns the colours.
- Compare the others with these. `{unwanted(PROMPT)}` is what *negative* keeps out.

`python dev.py demo` makes the picture in the readme from the same settings."""),
    "calm_high_cfg": Theme("High cfg without burnt colours", ("direction", "answer", "scale"), 8.0, """\
Each group is the same model, prompt and seed at **cfg 8**, which burns colours on this model, with one strategy that
takes something back: from the direction of guidance, from its scale, or from the answer.

The first group is plain CFG, to compare with. Groups with *flow* in the title use the same model as a flow model.

They chain: wire one's MODEL into the next. What reshapes the answer (rescale, norm, thresholds) comes last."""),
    "fewer_rows_other_models": Theme("Fewer predictions, other prompts, other models",
                                     ("fewer_rows", "other_models", "prompts", "attention"), 4.0, """\
Each group is the same model, prompt and seed at **cfg 4**, with one strategy: some leave predictions out and save time,
some change what stands for "no prompt" or bring another prompt into attention, and some bring a second model.

The first group is plain CFG, to compare with. The weak model of *Autoguidance* is made from the demo model here, to
show the wiring; with a real model take an earlier or smaller checkpoint of the same family."""),
}

SETTINGS = {
    "GuidanceMimic": {"mimic_scale": 3.0},
    "GuidanceCFGZeroStar": {"zero_steps": 1},
    "GuidanceSkimmedCFG": {"skim": 3.0},
    "GuidanceBetaCFG": {"gamma": 0.0},
    "GuidanceBudget": {"rows": 24},
    "GuidanceAutoguidance": {"share": 0.5},
    "GuidanceCADS": {"noise": 0.25},
    "GuidanceTextEncode": {"text": f"{PROMPT}, ({unwanted(PROMPT).split()[1]}:-1)"},
    "GuidanceClassifier": {"scale": 20.0},
    "GuidanceSLG": {"scale": 1.0, "start": 0.0, "end": 1.0},
    "GuidanceFBG": {"pi": 0.95},
}
ELSEWHERE = ("GuidanceDistilled",)  # for models that take their scale as an input; the bundled one does not
CFG = {"GuidanceAutoguidance": 3.0, "GuidanceClassifier": 1.0, "GuidanceFBG": 1.0}
FLOW = ("GuidanceCFGZeroStar", "GuidanceMamboG", "GuidanceMomentum")  # made for flow models


class Cell(NamedTuple):
    """One group: a strategy's node, if any, with a sampler and what comes of it."""
    title: str
    cfg: float
    node: str = ""
    inputs: dict = {}


def cells(name):
    """What a file of strategies shows, in the menu's order."""
    theme, shown = THEMES[name], {column.node for column in COLUMNS}
    taken = {home for other in THEMES.values() for home in other.homes or ()}
    rest = [cls for cls in STRATEGIES if cls.node_id not in (*shown, *ELSEWHERE)]
    if theme.homes is None:
        first = [Cell(column.title, column.cfg, column.node, column.inputs) for column in COLUMNS
                 if column.node or not column.negative]  # which is ignored at cfg 1
        rest = [cls for cls in rest if home(cls) not in taken]
    else:
        first = [Cell("Plain CFG", theme.cfg)]
        rest = [cls for cls in rest if home(cls) in theme.homes]
    return first + [
        Cell(cls.title + ", flow" * (cls.node_id in FLOW), CFG.get(cls.node_id, theme.cfg), cls.node_id,
             SETTINGS.get(cls.node_id, {}))
        for cls in rest
    ]


def home(cls):
    return cls.__module__.rpartition(".")[2]


# ---------------------------------------------------------------------------------------------- files of strategies

ABREAST = 3  # groups
CELL = 300 + 280 + 260 + 4 * GAP


class Rails:
    """What all samplers share, as lines side by side: down along the groups, and from there above each row of them."""

    def __init__(self, canvas, shared, x):
        self.canvas, self.shared, self.x, self.trunk = canvas, shared, x, {}

    def row(self, y):
        self.y, self.ends = y, {}

    def stop(self, name, x):
        """A link's source, for `Canvas.add`, that comes from the rail of that name in this row at x."""
        i = list(self.shared).index(name)
        if name not in self.ends:
            self.ends[name] = self.trunk[name] = self.canvas.reroute((self.x - RAIL * i, self.y + RAIL * i),
                                                                     self.trunk.get(name))
        self.ends[name] = self.canvas.reroute((x, self.y + RAIL * i), self.ends[name])
        return *self.shared[name], self.ends[name]


def strategies(name, known):
    canvas, shown = Canvas(known), cells(name)
    canvas.note((0, 0), (300, 360), f"# {THEMES[name].title}\n\n{THEMES[name].text}")
    shared = setup(canvas, 520, flow=any(cell.node in FLOW for cell in shown))
    left, lowest = 300 + 5 * GAP, -2 * GAP
    rails = Rails(canvas, shared, left - 2 * GAP)
    for i, cell in enumerate(shown):
        if i % ABREAST == 0:
            rails.row(lowest + GAP // 2)
            top, lowest = lowest + GAP + RAIL * len(shared) + HEAD, 0
        lowest = max(lowest, draw(canvas, cell, (left + i % ABREAST * CELL, top), rails))
    return canvas.text()


def draw(canvas, cell, at, rails):
    """A cell's group; returns its lower edge."""
    (x, y), first = at, len(canvas.nodes)
    model, made = rails.stop("flow" if cell.node in FLOW else "model", x - GAP // 2 if cell.node else x + 300), {}
    if cell.node:
        given, y = needs(canvas, cell.node, at, rails)
        added = canvas.add(cell.node, (x, y), {"model": model, **given}, cell.inputs)
        model, made = (added, 0), {"positive": (added, 1)} if len(added["outputs"]) > 1 else {}
    sample(canvas, model, (x + 300 + GAP, at[1]),
           lambda name, i: made.get(name) or rails.stop(name, x + 300 + 5 + RAIL // 2 * i), {"steps": 16, "cfg": cell.cfg})
    return canvas.group(cell.title, canvas.nodes[first:], left=x - GAP // 2)


def needs(canvas, kind, at, rails):
    """What a strategy takes besides MODEL: ({input: (node, output)}, the y below the nodes that this took)."""
    x, y = at
    takes = {form: name for name, (form, *_) in canvas.known[kind].INPUT_TYPES()["required"].items() if name != "model"}
    if "CLIP" in takes:
        return {takes["CLIP"]: rails.stop("clip", x - GAP // 2)}, y
    if "CONDITIONING" in takes:
        clip = {"clip": rails.stop("clip", x - GAP // 2)}
        source = canvas.add("CLIPTextEncode", at, clip, {"text": unwanted(PROMPT)}, "Unwanted", height=100)
    elif "GUIDANCE_CLASSIFIER" in takes:
        source = canvas.add("GuidanceDemoClassifier", at, values={"attribute": "color", "value": "green"})
    elif "MODEL" in takes:
        again = canvas.add("GuidanceDemoModel", at, values={"prediction": "eps"}, title="Loaded a second time")
        y += again["size"][1] + HEAD + GAP // 2
        source = canvas.add("PatchModelAddDownscale", (x, y), {"model": (again, 0)},
                            title="Weak: half the inner resolution")
    else:
        return {}, y
    given = next(takes[form] for form in ("CONDITIONING", "GUIDANCE_CLASSIFIER", "MODEL") if form in takes)
    return {given: (source, 0)}, y + source["size"][1] + HEAD + GAP // 2


# ---------------------------------------------------------------------------------------------- schedules

def schedules(known):
    canvas = Canvas(known)
    canvas.note((0, 0), (300, 420), """\
# Guidance that changes over the run

**Above**, a drawn curve is wired to the scale of *CFG*. The preview plots what each of the 20 steps gets.

**Below it**, a ready-made course for *PAG*, which *schedule math* keeps from going above 1.5. PAG stands after CFG on
the MODEL wire, and both act. *Guidance plan* says what each step of that run computes, before it runs.

A schedule goes wherever a strength is: drag its link onto the widget. Or type its text there: `0:7.5, 0.5:6, 1:1`.""")
    shared, left = setup(canvas, 520), 300 + 3 * GAP
    first = len(canvas.nodes)
    drawn = canvas.add("GuidanceSchedule", (left, 0), values={"schedule": "0:1, 0.2:5, 0.6:4, 1:2 smooth"}, width=380,
                       height=342)
    cfg = canvas.add("GuidanceCFG", (left + 380 + GAP, 0), {"model": shared["model"], "scale": (drawn, 0)})
    preview(canvas, (left + 680 + 2 * GAP, 0), cfg, drawn, off=1.0)
    top = canvas.group("A drawn schedule for CFG", canvas.nodes[first:]) + 2 * GAP
    first = len(canvas.nodes)
    ready = canvas.add("GuidanceSchedulePreset", (left, top), width=380,
                       values={"preset": "low-high-low", "scale": 1.0, "off": 0.0, "floor": 0.0})
    capped = canvas.add("GuidanceScheduleMath", (left + 380 + GAP, top), {"a": (ready, 0)},
                        {"operation": "min", "b": 1.5})
    pag = canvas.add("GuidancePAG", (left + 380 + GAP, top + 230), {"model": (cfg, 0), "scale": (capped, 0)})
    preview(canvas, (left + 680 + 2 * GAP, top), pag, capped, off=0.0)
    top = canvas.group("A ready-made schedule for PAG, at most 1.5", canvas.nodes[first:]) + 2 * GAP
    first = len(canvas.nodes)
    sample(canvas, (pag, 0), (left, top), lambda name, _: shared[name], {"steps": 20, "cfg": 3.0})
    canvas.group("Both at work", canvas.nodes[first:])
    planned = canvas.add("GuidancePlan", (left + 680 + 2 * GAP, top), {"model": (pag, 0)},
                         {"steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal"}, width=520, height=470)
    canvas.group("What it will compute", [planned])
    return canvas.text()


def preview(canvas, at, model, schedule, off):
    links = {"model": (model, 0), "schedule": (schedule, 0)}
    canvas.add("GuidanceSchedulePreview", at, links, {"scheduler": "normal", "off": off}, width=520, height=470)


# ---------------------------------------------------------------------------------------------- what is measured

def measured(known):
    canvas = Canvas(known)
    canvas.note((0, 0), (300, 360), """\
# What guidance does, measured

A **probe** on the MODEL wire changes nothing. While the sampler runs it draws how long the direction of guidance is and
where it points, and how much of each answer comes from CFG and from each node **before** the probe.

**Guidance probe plot** draws all of it when the run is over: wire to it the probe, and the LATENT that the sampler made.
Its numbers are JSON.

Here APG takes back much of what CFG adds at the start. Bypass it and run again, or move the probe before it.""")
    shared, left = setup(canvas, 520), 300 + 3 * GAP
    first = len(canvas.nodes)
    cfg = canvas.add("GuidanceCFG", (left, 0), {"model": shared["model"]}, {"scale": "0:8, 1:3"})
    pag = canvas.add("GuidancePAG", (left, 260), {"model": (cfg, 0)}, {"scale": 1.0})
    apg = canvas.add("GuidanceAPG", (left, 560), {"model": (pag, 0)})
    probe = canvas.add("GuidanceProbe", (left + 300 + GAP, 0), {"model": (apg, 0)}, width=340, height=520)
    x = left + 640 + 2 * GAP
    sampler = sample(canvas, (probe, 0), (x, 0), lambda name, _: shared[name], {"steps": 20, "cfg": 8.0})
    canvas.add("GuidanceProbePlot", (x + 540 + 2 * GAP, 0), {"probe": (probe, 1), "latent": (sampler, 0)}, width=360,
               height=760)
    canvas.group("CFG, PAG and APG, and a probe that sees all three", canvas.nodes[first:])
    return canvas.text()


# ---------------------------------------------------------------------------------------------- an edit

EDITED = "a big green circle on blue"


def edit(known):
    canvas = Canvas(known)
    canvas.note((0, 0), (300, 400), f"""\
# A picture edited by its prompt

**Null-text inversion** takes a picture back into noise, and learns for each step what to guide away from, so that CFG makes
it again. With another prompt only what the prompts differ in changes: here `{EDITED}`.

The picture is one of the model's own. For yours load an image, encode it, and write a prompt that describes it.

Sample with the same noise levels and cfg, and with **euler**.""")
    shared, left = setup(canvas, 560, batch=1), 300 + 3 * GAP
    first = len(canvas.nodes)
    picture = sample(canvas, shared["model"], (left, 0), lambda name, _: shared[name], {"steps": 16, "cfg": 3.0})
    top = canvas.group("A picture", canvas.nodes[first:]) + 2 * GAP
    first = len(canvas.nodes)
    levels = canvas.add("BasicScheduler", (left, top), {"model": shared["model"]}, {"scheduler": "normal", "steps": 16})
    inverted = canvas.add("GuidanceNullText", (left, top + 180), {
        "model": shared["model"], "latent": (picture, 0), "positive": shared["positive"], "negative": shared["negative"],
        "sigmas": (levels, 0)}, {"cfg": 3.0}, width=580)
    canvas.group("Back into noise", canvas.nodes[first:])
    x = left + 580 + 3 * GAP
    first = len(canvas.nodes)
    made_again(canvas, shared, (x, 0), (inverted, levels, picture), shared["positive"])
    canvas.group("The same prompt: the picture again", canvas.nodes[first:])
    first = len(canvas.nodes)
    prompt = canvas.add("CLIPTextEncode", (x, top), {"clip": shared["clip"]}, {"text": EDITED}, "Edited", height=100)
    made_again(canvas, shared, (x, top + 180), (inverted, levels, picture), (prompt, 0))
    canvas.group("Another prompt", canvas.nodes[first:])
    return canvas.text()


def made_again(canvas, shared, at, before, positive):
    """A sampler that starts from an inverted picture. before: the nodes of the inversion, its noise levels, the latent."""
    (x, y), (inverted, levels, picture) = at, before
    links = {"model": shared["model"], "positive": positive, "negative": (inverted, 1)}
    guider = canvas.add("CFGGuider", at, links, {"cfg": 3.0}, width=280)
    euler = canvas.add("KSamplerSelect", (x, y + 150), values={"sampler_name": "euler"}, width=280)
    sampler = canvas.add("SamplerCustomAdvanced", (x + 280 + GAP, y), {
        "noise": (inverted, 0), "guider": (guider, 0), "sampler": (euler, 0), "sigmas": (levels, 0),
        "latent_image": (picture, 0)}, width=280)
    decode = canvas.add("VAEDecode", (x + 280 + GAP, y + 180), {"samples": (sampler, 0), "vae": shared["vae"]}, width=280)
    decode["flags"]["collapsed"] = True
    shown = canvas.add("PreviewImage", (x + 560 + 2 * GAP, y), {"images": (decode, 0)}, width=260, height=290)
    shown["outputs"] = []  # as in canvas.sample


# ---------------------------------------------------------------------------------------------- all of them

def files():
    """{file name: text} of all example workflows."""
    known = {**classes(), **EXTRAS}
    return {**{f"{name}.json": strategies(name, known) for name in THEMES}, "schedules.json": schedules(known),
            "measured.json": measured(known), "edit.json": edit(known), **sheets.files(known)}


def write():
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
