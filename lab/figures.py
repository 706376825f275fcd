"""`python lab strips`: pictures for the help pages of nodes that are no strategies, of what these show."""
import comfy.utils
import nodes
from PIL import Image

from ..guidance.presets import preset
from ..guidance.schedule import parse
from ..nodes.curves import Box, boxes, picture
from ..nodes.demo.model import load
from ..nodes.direction import APG
from ..nodes.model_preset import with_defaults
from ..nodes.perturbed import PAG
from ..nodes.plot import plot
from ..nodes.probe import ProbeNode
from ..nodes.schedules import between, caption, timeline_of
from .demo import PROMPTS
from .strips import COLORS, SIZE, Strip, drawn, sample, save
from .sweep import encode

STEPS, SCALE = 20, 4.0
PRESETS = {"mean over the run: the scale": ("linear up", "cosine up", "low-high-low", "beta"),
           "of another kind": ("constant", "clamp-linear", "powered cosine", "interval")}


def run():
    """The moments of a run of the bundled model."""
    return timeline_of(load()[0], "normal", STEPS, 1.0)


def scheduled(text):
    """A schedule as its preview has it."""
    schedule, timeline, off = parse(text), run(), 1.0
    moments = timeline.moments(off)
    values = [schedule(moment) for moment in moments]
    return plot(str(schedule), caption(values, off), moments, values, between(schedule, timeline, off), off)


def presets():
    moments, steps = run().moments(1.0), list(range(STEPS))
    shown = [Box(title, {name: [preset(name, SCALE)(moment) for moment in moments] for name in names})
             for title, names in PRESETS.items()]
    return picture(shown, steps, {"percent": [moment.percent for moment in moments]}, f"scale {SCALE:g}, off 1")


def probed():
    """What a probe behind PAG and APG sees of the demo's prompts at cfg 8, less what it tells of the answer."""
    model, clip, _ = load()
    model = PAG.execute(model, **with_defaults(PAG, {"scale": 1.0})).result[0]
    model = APG.execute(model, **with_defaults(APG, {})).result[0]
    model, probe = ProbeNode.execute(model).result
    n = len(PROMPTS)
    latent, = nodes.EmptyLatentImage().generate(32, 32, n)
    nodes.common_ksampler(model, 1, STEPS, 8.0, "euler", "normal", encode(clip, PROMPTS), encode(clip, [""] * n), latent)
    record = probe.seen.record()
    return picture(boxes(record["streams"][0])[:3], record["step"], {"sigma": record["sigma"]}, "cfg 8, PAG and APG")


def modelled():
    rows = [sample(Strip(SCALE, prompts=tuple(prompts)))[0] for prompts in (PROMPTS[:4], PROMPTS[4:])]
    return drawn(rows, (f"four prompts at cfg {SCALE:g}", "four more"))


FEW = 24  # colors of a plot
FIGURES = {  # by the nodes whose pages show them: what draws it, and how many colors it needs
    "GuidanceSchedule": (lambda: scheduled("0:7.5, 0.5:6, 1:1"), FEW),
    "GuidanceSchedulePreview": (lambda: scheduled("20:1, 5.42:7.5, 0.28:1 step sigma"), FEW),
    "GuidanceSchedulePreset": (presets, FEW),
    "GuidanceProbePlot": (probed, FEW),
    "GuidanceDemoModel": (modelled, COLORS),
}


def write(names=()):
    """Draw all, or those of nodes by their ids, as wide as a strip."""
    comfy.utils.set_progress_bar_enabled(False)
    for name, (made, colors) in FIGURES.items():
        if not names or name in names:
            image = made()
            height = round(image.height * SIZE[0] / image.width)
            save(image.resize((SIZE[0], height), Image.Resampling.LANCZOS), name, colors=colors)
