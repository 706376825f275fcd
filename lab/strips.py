"""`python lab strips`: the pictures in the help pages of strategies, of the bundled model without each and with it.

Above and below are the same prompts and the same noise. Each file keeps the settings that it shows, so that a test sees when
they are no longer these.
"""
import json
from pathlib import Path
from typing import NamedTuple

import comfy.utils
import nodes
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from ..nodes import STRATEGIES
from ..nodes.demo.classifier import DemoClassifier
from ..nodes.demo.model import load
from ..nodes.letters import letters
from ..nodes.model_preset import with_defaults
from ..nodes.sheet import BACK, TEXT
from .demo import OPEN, PROMPTS, unwanted
from .sweep import encode

FOLDER = Path(__file__).parent.parent / "web" / "docs" / "pictures"
STEPS = 16
SIDE, GAP = 96, 4  # pixels of a picture, which has 32, and between two
LETTER, LINE = 20, 28  # the page's panel begins narrower than a strip, where 12 pixels are left of 20
SIZE = GAP + 4 * (SIDE + GAP), 2 * (LINE + SIDE + GAP)
COLORS = 256  # of a file, at most
KEY = "settings"  # under which a file keeps them


class Strip(NamedTuple):
    """What a page shows. inputs: those not at their defaults; before: the cfg without the strategy, where it is another."""
    cfg: float = 12.0
    inputs: dict = {}
    before: float | None = None
    prediction: str = "v"
    prompts: tuple = tuple(PROMPTS[:4])
    seed: int = 0


OPENED, COLOR = (OPEN,) * 4, unwanted(OPEN).split()[1]
GREEN = 8  # a seed with which the model makes three of four open circles green
BOOSTED = 2.0  # the cfg where this model leaves something to be done by what makes it stronger

STRIPS = {  # what is not here is shown with its defaults
    "GuidanceCFG": Strip(1, {"scale": "4"}),
    "GuidanceNegative": Strip(3, {"mode": "perp-neg"}, prompts=OPENED, seed=GREEN),
    "GuidanceNAG": Strip(1, {"alpha": 0.5}, prompts=OPENED, seed=GREEN),
    "GuidancePushAway": Strip(1, prompts=OPENED, seed=GREEN),
    "GuidanceTextEncode": Strip(1, {"text": f"{OPEN}, ({COLOR}:-1)"}, prompts=OPENED, seed=GREEN),
    "GuidancePerpCFG": Strip(inputs={"reference": "cond"}),
    "GuidancePAG": Strip(BOOSTED, {"scale": 1.0, "layers": "middle, output"}),
    "GuidanceSLG": Strip(BOOSTED, {"start": 0.0, "end": 1.0}),
    "GuidanceSEG": Strip(BOOSTED),
    "GuidanceTPG": Strip(BOOSTED, {"scale": 1.0}),
    "GuidanceRandomLayers": Strip(BOOSTED, {"scale": 0.5}),
    "GuidanceERG": Strip(BOOSTED, {"layers": "all"}),
    "GuidanceTSG": Strip(BOOSTED, {"scale": 3.0}),
    "GuidanceSWG": Strip(BOOSTED, {"scale": 1.1}),
    "GuidancePLADIS": Strip(1),
    "GuidanceMimic": Strip(inputs={"mimic_scale": 5.0, "start": "zero"}),
    "GuidanceCFGZeroStar": Strip(6, {"zero_steps": 1}, prediction="flow"),
    "GuidanceFreSca": Strip(inputs={"low": 0.4}),
    "GuidanceMamboG": Strip(prediction="flow"),
    "GuidancePowerLaw": Strip(3),
    "GuidanceBetaCFG": Strip(inputs={"gamma": 0.0}),
    "GuidanceSkimmedCFG": Strip(inputs={"skim": 3.0}),
    "GuidanceMomentum": Strip(1.5, {"alpha": 1.0}, prediction="flow"),
    "GuidanceSMC": Strip(8, {"gain": 0.1}, prediction="flow"),
    "GuidanceFBG": Strip(1, {"pi": 0.95}),
    "GuidanceRectCFGPlusPlus": Strip(prediction="flow"),
    "GuidanceAdaptive": Strip(6, {"threshold": 0.1}),
    "GuidanceAlternate": Strip(6),
    "GuidanceCompress": Strip(6),
    "GuidanceBudget": Strip(6, {"rows": 22}),
    "GuidanceAutoguidance": Strip(3, before=1),
    "GuidanceClassifier": Strip(3, {"scale": 5.0}, prompts=OPENED),
    "GuidanceNull": Strip(6),
    "GuidanceCADS": Strip(4, {"noise": 0.25}, prompts=(PROMPTS[0],) * 4),
}
UNWANTED = {"GuidanceNegative": unwanted(OPEN), "GuidanceNAG": unwanted(OPEN), "GuidancePushAway": COLOR}
LEFT_OUT = {
    "GuidanceStreamCFG": "the bundled model makes one stream, so it would be plain CFG",
    "GuidanceDistilled": "the bundled model takes no scale",
}


def shown():
    """{node class: its Strip} of the strategies that have one."""
    return {cls: STRIPS.get(cls.node_id, Strip()) for cls in STRATEGIES if cls.node_id not in LEFT_OUT}


def settings(strip):
    """As a file keeps them."""
    return json.dumps([STEPS, *strip])


# ---------------------------------------------------------------------------------------------- pictures

def sample(strip, cls=None):
    """(a picture of each prompt, rows per picture), with the strategy `cls` or without any."""
    model, clip, vae = load(strip.prediction)
    rows, positive, cfg = [], encode(clip, strip.prompts), strip.cfg

    def count(executor, x, *args, **kwargs):
        rows.append(len(x))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "strips", count)
    if cls:
        given = {**brought(cls, clip, strip), **with_defaults(cls, strip.inputs)}
        model, *made = cls.execute(model, **given).result
        positive = made[0] if made else positive
    elif strip.before is not None:
        cfg = strip.before
    n = len(strip.prompts)
    latent, = nodes.EmptyLatentImage().generate(32, 32, n)
    latent, = nodes.common_ksampler(model, strip.seed, STEPS, cfg, "euler", "normal", positive, encode(clip, [""] * n), latent)
    images = (nodes.VAEDecode().decode(vae, latent)[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return [Image.fromarray(image) for image in images], sum(rows) / n


def brought(cls, clip, strip):
    """What a strategy takes besides MODEL, by its inputs' types."""
    made = {
        "CLIP": lambda: clip,
        "CONDITIONING": lambda: nodes.CLIPTextEncode().encode(clip, UNWANTED[cls.node_id])[0],
        "GUIDANCE_CLASSIFIER": lambda: DemoClassifier.execute(attribute="color", value=COLOR).result[0],
        "MODEL": weak,
    }
    return {input.id: made[input.io_type]() for input in cls.inputs if input.io_type in made}


def weak():
    """The bundled model at half its inner resolution."""
    return PatchModelAddDownscale.execute(
        load()[0], block_number=3, downscale_factor=2.0, start_percent=0.0, end_percent=0.35, downscale_after_skip=True,
        downscale_method="bicubic", upscale_method="bicubic").result[0]


def labels(cls, strip, rows):
    """(above the pictures without it, above those with it). rows: of both, which are told of what saves them."""
    cost = [f", {row:g} rows" if cls.saves else "" for row in rows]
    told = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in strip.inputs.items() if name != "text"]  # which is too long; the page has it
    before = strip.cfg if strip.before is None else strip.before
    return f"without: cfg {before:g}{cost[0]}", f"with: {', '.join([f'cfg {strip.cfg:g}', *told])}{cost[1]}"


def drawn(pictures, labels):
    """Rows of pictures below their labels, enlarged so that every pixel is seen."""
    image = Image.new("RGB", SIZE, BACK)
    draw, font = ImageDraw.Draw(image), letters(LETTER)
    for i, (row, label) in enumerate(zip(pictures, labels)):
        y = i * (LINE + SIDE + GAP)
        if font.getlength(label) > SIZE[0] - 2 * GAP:
            raise ValueError(f"{label!r} is wider than a strip.")
        draw.text((GAP, y + LINE // 2), label, TEXT, font, anchor="lm")
        for j, picture in enumerate(row):
            enlarged = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
            image.paste(enlarged, (GAP + j * (SIDE + GAP), y + LINE))
    return image


def save(image, name, kept=None, colors=COLORS):
    """Write a page's picture, which keeps the settings that it shows."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    told = PngInfo()
    if kept:
        told.add_text(KEY, kept)
    few = image.quantize(colors, Image.Quantize.MAXCOVERAGE, kmeans=3)  # which keeps the colors of small things
    few.save(FOLDER / f"{name}.png", optimize=True, pnginfo=told)
    print(FOLDER / f"{name}.png", flush=True)


def write(names=()):
    """Draw all strips, or those of strategies by their ids."""
    comfy.utils.set_progress_bar_enabled(False)
    for cls, strip in shown().items():
        if not names or cls.node_id in names:
            pictures, rows = zip(sample(strip), sample(strip, cls))
            save(drawn(pictures, labels(cls, strip, rows)), cls.node_id, settings(strip))
