"""Training of the judge: `python dev.py lab judge`.

On the same procedural images as the model, disturbed in noise, contrast and sharpness so that it goes on recognising
what a guided sample does to them.
"""
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ..nodes.demo.judge import THUMB, WEIGHTS, Judge
from . import data


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
