"""`python lab order`: how much two nodes that edit the direction of guidance do differently when they are swapped.

Counted on latents of the bundled model at cfg 8: the length of the difference, as a share of the picture's.
"""
from itertools import combinations

import comfy.utils
import nodes
import torch

from ..nodes import STRATEGIES, direction
from ..nodes.demo.model import load

CFG, STEPS = 8.0, 20
EDITORS = [cls for cls in STRATEGIES if cls.__module__ == direction.__name__]


def wired(model, *line):
    for cls in line:
        widgets = [getattr(given, "input_override", None) or given for given in cls.inputs]
        model = cls.execute(model=model, **{widget.id: widget.default for widget in widgets}).result[0]
    return model


def report(batch=2):
    comfy.utils.set_progress_bar_enabled(False)
    model, clip, _ = load()
    positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a big red circle on blue", ""))
    inputs = positive, negative, nodes.EmptyLatentImage().generate(32, 32, batch)[0]

    def sample(*line):
        return nodes.common_ksampler(wired(model, *line), 1, STEPS, CFG, "euler", "normal", *inputs)[0]["samples"]

    found = []
    for one, other in combinations(EDITORS, 2):
        first, second = sample(one, other), sample(other, one)
        found.append((float(torch.dist(first, second) / first.norm()), one.title, other.title))
    for share, one, other in sorted(found, reverse=True):
        print(f"{share:6.1%}  {one}, {other}")
