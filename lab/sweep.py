"""`python lab sweep`: what the guidance scale, and nodes, do to the demo model, through ComfyUI's own KSampler."""
import json
import time
from functools import reduce

import comfy.utils
import nodes
import torch

from ..nodes.demo import judge
from ..nodes.demo.model import load
from . import data, metrics
from .demo import classes

COLUMNS = ("core3", "joint4", "color", "shape", "background", "size", "frechet", "clipped", "saturation")
CHUNK = 64


def encode(clip, prompts):
    """A CONDITIONING with one prompt per image of the batch."""
    conds = [nodes.CLIPTextEncode().encode(clip, prompt)[0][0][0] for prompt in prompts]
    return [[torch.cat(conds), {"pooled_output": None}]]


def sample(model, clip, vae, prompts, cfg, seed=0, steps=16, sampler="euler", scheduler="normal", negatives=None):
    """One image per prompt, (n, 3, 32, 32) in 0..1; the noise depends on the seed only. negatives: none is empty ones."""
    latent, = nodes.EmptyLatentImage().generate(32, 32, len(prompts))
    result, = nodes.common_ksampler(model, seed, steps, cfg, sampler, scheduler, encode(clip, prompts),
                                    encode(clip, negatives or [""] * len(prompts)), latent)
    return nodes.VAEDecode().decode(vae, result)[0].movedim(-1, 1)


def guided(model, text, **links):
    """The model with a node behind it, such as `GuidanceTSG scale=3 end=0.6`; other knobs have their defaults. links: what
    is no widget."""
    name, *knobs = text.split()
    kind = classes()[name]
    widgets = [(input.id, getattr(input, "input_override", None) or input) for input in kind.inputs]
    given = {id: widget.default for id, widget in widgets if getattr(widget, "default", None) is not None}
    for id, value in (knob.split("=") for knob in knobs):
        try:
            given[id] = json.loads(value)
        except ValueError:  # a choice, or a schedule
            given[id] = value
    return kind.execute(model, **given, **links).result[0]


def sweep(scales, n=512, steps=16, prediction="v", seed=5, sampler="euler", scheduler="normal", nodes=()):
    """Yields one dict of metrics per scale; the first row is n real images, the best that a sample can score."""
    jury, (model, *rest) = judge.load(), load(prediction)
    loaded = (reduce(guided, nodes, model), *rest)
    reference = metrics.reference(jury)
    images, scenes = metrics.real(n, seed)
    yield {"scale": "real", **metrics.score(images, scenes, jury, reference)}
    prompts = [data.caption(scenes, i) for i in range(n)]
    for scale in scales:
        start = time.process_time()  # unlike the wall, it does not count what else the machine was doing
        images = torch.cat([sample(*loaded, prompts[i:i + CHUNK], scale, seed + i, steps, sampler, scheduler)
                            for i in range(0, n, CHUNK)])
        seconds = time.process_time() - start
        yield {"scale": scale, **metrics.score(images, scenes, jury, reference), "cpu ms": 1000 * seconds / n}


def report(**settings):
    """Print the sweep as a Markdown table, a row as soon as it is known."""
    comfy.utils.set_progress_bar_enabled(False)
    print("| cfg |", " | ".join(COLUMNS), "| CPU ms |\n|" + "---|" * (len(COLUMNS) + 2))
    for row in sweep(**settings):
        cells = [format(row[name], {"frechet": ".2f", "clipped": ".2%"}.get(name, ".3f"))
                 for name in COLUMNS]
        taken = f"{row['cpu ms']:.0f}" if "cpu ms" in row else ""
        print("|", row["scale"], "|", " | ".join(cells), "|", taken, "|", flush=True)
