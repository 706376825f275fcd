"""A judge that knows noise: what a noisy picture will show, log p(y | x) at every noise level of the demo model.

Classifier guidance as in its first paper needs one; the judge has only seen clean pictures. `python dev.py lab noisy_judge`
trains it.
"""
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from .judge import CHOICES

WEIGHTS = Path(__file__).with_name("noisy_judge.safetensors")
SIZES = [(3, 32, 1), (32, 48, 2), (48, 64, 1), (64, 96, 2), (96, 128, 2)]  # inputs, outputs and stride of each layer
FEATURES, TOLD = 64, 32


class NoisyJudge(nn.Module):
    """Pictures with noise, x0 + sigma * noise (n, 3, 32, 32) with x0 in -1..1, and sigma (n,), to one row of logits per
    attribute."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, stride, 1) for inputs, outputs, stride in SIZES)
        self.norms = nn.ModuleList(nn.GroupNorm(8, outputs) for _, outputs, _ in SIZES)
        self.told = nn.Sequential(nn.Linear(3, TOLD), nn.GELU(), nn.Linear(TOLD, 2 * sum(size[1] for size in SIZES)))
        self.features = nn.Linear(SIZES[-1][1] * 4 ** 2, FEATURES)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, len(words)) for words in CHOICES)

    def forward(self, pictures, sigma):
        level = sigma.log()
        told = self.told(torch.stack([level / 3, level.sin(), level.cos()], 1))
        h = pictures * (0.3 + sigma ** 2).rsqrt().view(-1, 1, 1, 1)  # 0.3: about the variance of pictures
        for layer, norm, (_, outputs, _) in zip(self.layers, self.norms, SIZES):
            scale, shift = told[:, :2 * outputs].unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
            told = told[:, 2 * outputs:]
            h = F.gelu(norm(layer(h)) * (1 + scale) + shift)
        h = F.gelu(self.features(h.flatten(1)))
        return [head(h) for head in self.heads]


def load() -> NoisyJudge:
    judge = NoisyJudge()
    judge.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return judge.eval().requires_grad_(False)
