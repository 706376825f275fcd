"""Training of single-pass superconditioning (madebyollin 2025,
https://gist.github.com/madebyollin/9ade93d41eef03034374e6a7cfd4b28e) on any torch network: one that predicts with the prompt
and without it in one forward, in twice the channels. GuidanceSinglePass runs what comes out. Nothing here knows ComfyUI.

From data, as in the source:

    widen(network, "out.2")                                     # once: its last layer has twice the outputs
    captions, alone = exchanged(captions, rng)                  # each batch: some samples have another's caption
    error = loss(network(x, time, captions), target, alone)     # the second half learns from these, the first from the rest

or all of it as `step(network, optimizer, x, time, captions, target, rng)`. From a finished model that is asked twice, whose
answers are the targets: `distilled(network(x, time, captions), with_prompt, without)`, which learns far more from each sample.
"""
import torch
from torch import nn

SHARE = 0.1  # of a batch that has another's caption


def widen(network: nn.Module, name: str) -> None:
    """Give the network's last layer, a Linear or Conv of this name, twice the outputs. Both halves start as what it was, so
    that the network predicts the same twice until it is trained."""
    layer = network.get_submodule(name)
    if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) or getattr(layer, "groups", 1) != 1:
        raise TypeError(f"{name} is a {type(layer).__name__}; it has to be a Linear or an ungrouped convolution.")
    for kind in ("weight", "bias"):
        value = getattr(layer, kind)
        if value is not None:
            setattr(layer, kind, nn.Parameter(torch.cat([value.detach()] * 2), value.requires_grad))
    outputs = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(layer, outputs, 2 * getattr(layer, outputs))


def derangement(count: int, rng: torch.Generator | None = None) -> torch.Tensor:
    """A random order (count,) in which none is where it was, every such order as likely as any other. (To roll them by one is
    such an order too, but always the same: neighbours in a batch are often alike.)"""
    if count < 2:
        raise ValueError(f"{count} samples have no order in which none is where it was; it takes 2.")
    while True:  # one of e orders is such a one
        order = torch.randperm(count, generator=rng)
        if (order != torch.arange(count)).all():
            return order


def exchanged(captions: torch.Tensor, rng: torch.Generator | None = None, share: float = SHARE):
    """(captions, alone) with the captions (batch, ...) of some samples, at least 2, exchanged among them, and which those
    are, (batch,). What a sample has to say without knowing its caption is what it says with one that tells nothing about it."""
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it has to be above 0 and at most 1.")
    count = len(captions)
    chosen = torch.randperm(count, generator=rng)[:max(2, round(share * count))]
    alone = torch.zeros(count, dtype=torch.bool)
    alone[chosen] = True
    order = torch.arange(count)
    order[chosen] = chosen[derangement(len(chosen), rng)]
    return captions[order.to(captions.device)], alone.to(captions.device)


def loss(prediction: torch.Tensor, target: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """Mean squared error of a prediction (batch, 2 channels, ...) of a target (batch, channels, ...): of the second half where
    a sample's caption was another's (`alone`), of the first where it was its own. Each half counts the same, although one
    has fewer samples."""
    cond, uncond = (half - target for half in prediction.float().chunk(2, 1))
    return mean_square(cond[~alone]) + mean_square(uncond[alone])


def distilled(prediction: torch.Tensor, cond: torch.Tensor, uncond: torch.Tensor, weight: torch.Tensor | None = None):
    """Mean squared error of a prediction (batch, 2 channels, ...) of what a finished model predicts with the prompt and
    without it, (batch, channels, ...) each. weight: how much each sample counts, (batch,); 1 without it."""
    error = (prediction.float() - torch.cat([cond, uncond], 1).float()).square().flatten(1).mean(1)
    return (error if weight is None else weight * error).mean()


def mean_square(values):
    return values.square().mean() if len(values) else values.sum()  # 0, with a gradient


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x, time, captions, target, rng=None, share=SHARE) -> float:
    """One step of training on a batch; the loss before it. network: called as network(x, time, captions)."""
    captions, alone = exchanged(captions, rng, share)
    error = loss(network(x, time, captions), target, alone)
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
    return error.item()
