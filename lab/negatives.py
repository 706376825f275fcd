"""`python lab negatives`: what a negative does at cfg 1, where ComfyUI ignores it, and beside CFG.

Prompts leave the colour of the shape to the model ("a big circle on white"), and the negative names one. Counted is how often
the shape has that colour, and how often size, shape and background are as asked.
"""
import comfy.utils
import torch

from ..nodes import STRATEGIES
from ..nodes.demo import judge
from ..nodes.demo.model import load
from ..nodes.demo.text import COLORS
from . import data, metrics
from .sweep import CHUNK, encode, sample

NODES = {cls.node_id: cls for cls in STRATEGIES}
SETTINGS = {  # the sampler's cfg, whether it gets the negative, and the node on the wire
    "cfg 1, the negative in the sampler": (1, True, None, {}),
    **{f"cfg 1, NAG {scale}": (1, False, "GuidanceNAG", {"scale": scale, "alpha": 0.5}) for scale in (2.0, 4.0, 8.0)},
    **{f"cfg 1, pushed away by {weight}": (1, False, "GuidancePushAway", {"weight": weight}) for weight in (0.5, 1.0, 2.0)},
    "cfg 1, PAG 1": (1, False, "GuidancePAG", {"scale": 1.0, "layers": "middle, output"}),
    "cfg 1, SEG 3": (1, False, "GuidanceSEG", {"scale": 3.0}),
    "cfg 3, no negative": (3, False, None, {}),
    "cfg 3, the negative in the sampler": (3, True, None, {}),
    "cfg 3, NAG 4": (3, False, "GuidanceNAG", {"scale": 4.0, "alpha": 0.5}),
    "cfg 3, pushed away by 1.0": (3, False, "GuidancePushAway", {"weight": 1.0}),
}
TAKES = {"GuidanceNAG": "negative", "GuidancePushAway": "away"}


def drawn(n, seed):
    """n scenes, the words of prompts without the shape's colour, and as negatives a colour that the background has not."""
    rng = torch.Generator().manual_seed(seed)
    scenes = data.draw_scenes(n, rng)
    prompts = [" ".join(word for i, word in enumerate(data.caption(scenes, j).split()) if i != 2) for j in range(n)]
    return scenes, prompts, [COLORS[int(color)] for color in scenes.color]


def measure(name, scenes, prompts, negatives, loaded, jury, seed):
    """(images with the negative's colour, images that are as asked but for the colour) under one of SETTINGS."""
    cfg, given, id, knobs = SETTINGS[name]
    model, clip, vae = loaded
    images = []
    for i in range(0, len(prompts), CHUNK):
        part, away = prompts[i:i + CHUNK], negatives[i:i + CHUNK]
        guided = model
        if id is not None:
            widgets = [getattr(input, "input_override", None) or input for input in NODES[id].inputs]
            inputs = {widget.id: getattr(widget, "default", None) for widget in widgets}
            brought = {TAKES[id]: encode(clip, away)} if id in TAKES else {}
            guided = NODES[id].execute(model=model, **{**inputs, **brought, **knobs}).result[0]
        images.append(sample(guided, clip, vae, part, cfg, seed + i, negatives=away if given else None))
    seen = jury.read(torch.cat(images))
    followed = (seen.size == scenes.size) & (seen.shape == scenes.shape) & (seen.background == scenes.background)
    return int((seen.color == scenes.color).sum()), int(followed.sum())


def report(n=512, seed=9):
    """Print a Markdown table, a row as soon as it is known; shares with their 95 % intervals."""
    comfy.utils.set_progress_bar_enabled(False)
    loaded, jury, asked = load("v"), judge.load(), drawn(n, seed)
    print("| | has the negative's colour | size, shape and background as asked |\n|---|---|---|")
    for name in SETTINGS:
        cells = []
        for hits in measure(name, *asked, loaded, jury, seed):
            low, high = metrics.interval(hits, n)
            cells.append(f"{hits / n:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
