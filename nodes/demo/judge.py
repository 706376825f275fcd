"""The judge: a small classifier that says what an image shows, and the features for the Frechet distance.

`python dev.py lab judge` trains it (lab/train_judge.py). It is ours, not an independent measure such as CLIP.
"""
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from .text import BACKGROUNDS, COLORS, SHAPES, SIZES

WEIGHTS = Path(__file__).with_name("judge.safetensors")
PIXELS = 32
FEATURES, THUMB = 64, 4


class Scenes(NamedTuple):
    """What n images show: four index tensors of shape (n,) into CHOICES, which has the words in the same order."""
    size: torch.Tensor | tuple[str, ...]
    color: torch.Tensor | tuple[str, ...]
    shape: torch.Tensor | tuple[str, ...]
    background: torch.Tensor | tuple[str, ...]


CHOICES = Scenes(SIZES, COLORS, SHAPES, BACKGROUNDS)


class Judge(nn.Module):
    """Images (n, 3, 32, 32) in 0..1 to features (n, FEATURES) and, from those, one row of logits per attribute."""

    def __init__(self):
        super().__init__()
        layers, sizes = [], [(3, 32, 1), (32, 48, 2), (48, 64, 1), (64, 96, 2), (96, 128, 2)]
        for inputs, outputs, stride in sizes:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.GELU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * THUMB ** 2, FEATURES))
        self.heads = nn.ModuleList(nn.Linear(FEATURES, len(words)) for words in CHOICES)
        # Features that can redraw a thumbnail carry colour and layout, not just the class.
        self.thumb = nn.Linear(FEATURES, 3 * THUMB ** 2)
        self.register_buffer("scale", torch.ones(()))

    def features(self, images):
        """Features scaled so that real images have a variance of 1 per feature, on average."""
        return self.trunk(images * 2 - 1) * self.scale

    def forward(self, images):
        features = F.gelu(self.trunk(images * 2 - 1))
        return [head(features) for head in self.heads], self.thumb(features)

    @torch.no_grad()
    def read(self, images) -> Scenes:
        """What the images show."""
        return Scenes(*(logits.argmax(1) for logits in self(images)[0]))


def load() -> Judge:
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return judge.eval().requires_grad_(False)
