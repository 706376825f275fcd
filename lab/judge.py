"""The judge: a small classifier that says what an image shows, and the features for the Frechet distance.

`python lab judge` trains it on the same procedural images as the model, disturbed in noise, contrast and sharpness so
that it goes on recognising what a guided sample does to them. It is ours, not an independent measure such as CLIP.
"""
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from . import data

WEIGHTS = Path(__file__).with_name("judge.safetensors")
FEATURES, THUMB = 64, 4


class Judge(nn.Module):
    """Images (n, 3, 32, 32) in 0..1 to features (n, FEATURES) and, from those, one row of logits per attribute."""

    def __init__(self):
        super().__init__()
        layers, sizes = [], [(3, 32, 1), (32, 48, 2), (48, 64, 1), (64, 96, 2), (96, 128, 2)]
        for inputs, outputs, stride in sizes:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.GELU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * THUMB ** 2, FEATURES))
        self.heads = nn.ModuleList(nn.Linear(FEATURES, len(words)) for words in data.CHOICES)
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
    def read(self, images) -> data.Scenes:
        """What the images show."""
        return data.Scenes(*(logits.argmax(1) for logits in self(images)[0]))


def load() -> Judge:
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return judge.eval().requires_grad_(False)


def disturb(images, rng):
    """Each image with its own contrast (half to double), blur and noise."""
    uniform = lambda low, high: low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=rng)
    images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), uniform(-.5, 1).clamp(min=0))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + uniform(-1, 1).mul(.7).exp() * (images - mean)
    return (images + uniform(-.1, .1).clamp(min=0) * torch.randn(images.shape, generator=rng)).clamp(0, 1)


def train(steps=1500, batch=128, seed=1):
    """Train, measure on held-out images, save."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        scenes = data.draw_scenes(batch, rng)
        images = disturb(data.render(scenes, rng), rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits, thumb = judge(images)
            error = 5 * F.mse_loss(thumb.float(), F.adaptive_avg_pool2d(images, THUMB).flatten(1))
            error = error + sum(F.cross_entropy(row.float(), truth) for row, truth in zip(logits, scenes))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        rate.step()
    judge.eval().requires_grad_(False)
    real = data.render(data.draw_scenes(4096, rng), rng)
    judge.scale = judge.features(real).var(0).mean().rsqrt()
    save_file({name: value.half() for name, value in judge.state_dict().items()}, WEIGHTS,
              {"command": "python lab judge", "torch": torch.__version__})
    scenes = data.draw_scenes(2000, rng)
    seen = judge.read(data.render(scenes, rng))
    print({name: (a == b).float().mean().item() for name, a, b in zip(scenes._fields, seen, scenes)})
