"""Superconditioning in 30 lines: points of two classes, and guidance to one of them from a single forward a step.
Prints how many points lie on the right side at each scale: `python dev.py lab superconditioning`."""
import torch
from torch import nn

from .superconditioning import step, widen


class Points(nn.Module):
    """Predicts the clean points (n, 2) from noisy ones, their sigma (n, 1) and their class (n,)."""

    def __init__(self):
        super().__init__()
        self.classes = nn.Embedding(2, 16)
        self.layers = nn.Sequential(nn.Linear(19, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2))

    def forward(self, x, sigma, label):
        x = x / (1 + sigma ** 2).sqrt()
        return self.layers(torch.cat([x, sigma.log(), self.classes(label)], 1))


def train(steps=3000, seed=0):
    rng = torch.Generator().manual_seed(torch.manual_seed(seed).initial_seed())
    network = Points()
    widen(network, "layers.4")  # from here on it predicts (n, 4): with the class, and without it
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        label = torch.randint(2, (256,), generator=rng)
        clean = (2 * label - 1).unsqueeze(1) * torch.tensor([0.7, 0.0]) + torch.randn(256, 2, generator=rng)  # they overlap
        sigma = torch.randn(256, 1, generator=rng).exp()
        step(network, optimizer, clean + sigma * torch.randn(256, 2, generator=rng), sigma, label, clean, rng, share=0.3)
    return network


@torch.no_grad()
def sample(network, scale, count=2000, seed=1):
    """Points of class 1, in 20 forwards."""
    sigmas = torch.logspace(1, -1.5, 21)
    x = sigmas[0] * torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    for sigma, following in zip(sigmas, sigmas[1:]):
        cond, uncond = network(x, sigma.expand(count, 1), torch.ones(count, dtype=torch.long)).chunk(2, 1)
        x = torch.lerp(uncond + scale * (cond - uncond), x, following / sigma)
    return x


def report():
    network = train()
    for scale in (0, 1, 2, 4):
        print(f"scale {scale}: {(sample(network, scale)[:, 0] > 0).float().mean():.0%} on the right side")
