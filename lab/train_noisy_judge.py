"""Training of the judge that knows noise: `python dev.py lab noisy_judge`. On the same procedural pictures as the model."""
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ..nodes.demo.noise import sigma_table
from ..nodes.demo.noisy_judge import WEIGHTS, NoisyJudge
from . import data

SIGMAS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)


def noised(scenes, sigma, rng):
    pictures = data.render(scenes, rng) * 2 - 1
    return pictures + sigma.view(-1, 1, 1, 1) * torch.randn(pictures.shape, generator=rng)


def train(steps=2600, batch=64, seed=2):
    """Train, save, and print how often each attribute is seen in pictures of each noise level that were held out."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    judge, (lowest, highest) = NoisyJudge(), sigma_table()[[0, -1]].log()
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        scenes = data.draw_scenes(batch, rng)
        sigma = torch.lerp(lowest, highest, torch.rand(batch, generator=rng)).exp()
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(noised(scenes, sigma, rng), sigma)
        error = sum(F.cross_entropy(row.float(), truth) for row, truth in zip(logits, scenes))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        rate.step()
    judge.eval().requires_grad_(False)
    save_file({name: value.half() for name, value in judge.state_dict().items()}, WEIGHTS,
              {"command": "python lab noisy_judge", "torch": torch.__version__})
    print("| sigma | size | color | shape | background |\n" + "|---" * 5 + "|")
    for level in SIGMAS:
        scenes, sigma = data.draw_scenes(1000, rng), torch.full((1000,), level)
        seen = [row.argmax(1) for row in judge(noised(scenes, sigma, rng), sigma)]
        print(f"| {level:g} | {' | '.join(f'{(a == b).float().mean():.3f}' for a, b in zip(seen, scenes))} |")
