"""The demo model in one pass: with the prompt and, in as many more channels, without it.

Its trunk is the demo model itself, whose prediction with the prompt stays what it was, bit for bit. A second half begins where
the trunk has not met its text yet, with copies of some of the trunk's layers that read no text, and draws what it finds
otherwise into what the trunk draws. `python dev.py lab single_pass --train` teaches it what the demo model predicts without a
prompt.
"""
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .network import CHANNELS, DemoUNet
from .text import LENGTH, WIDTH

WEIGHTS = Path(__file__).with_name("single_pass.safetensors")


class SinglePassUNet(DemoUNet):
    """As DemoUNet, with (B, 6, H, W) for (B, 3, H, W): what is predicted with the prompt, then without it."""

    def __init__(self, **config):
        super().__init__(**config)
        self.second = SecondHalf(self, config["operations"], config.get("dtype"), config.get("device"))
        found: dict[str, torch.Tensor] = {}  # in one forward. The hooks keep it and not the network, which can be freed
        self.found = found
        keep = lambda name: lambda module, args, out: found.__setitem__(name, out)
        down, up = self.input_blocks, self.output_blocks
        for name, module in (("fine", down[0][0]), ("coarse", down[2][0]), ("middle", self.middle_block[2]),
                             ("mixed", up[1][1]), ("drawn", up[2][0]), ("time", self.time_embed)):
            module.register_forward_hook(keep(name))

    def in_patches(self, *args, **kwargs):
        try:
            with_prompt = super().in_patches(*args, **kwargs)
            return torch.cat([with_prompt, self.second(**self.found)], 1)
        finally:
            self.found.clear()


class SecondHalf(nn.Module):
    """The prediction without the prompt, (B, 12, 16, 16) in patches, from what the trunk has found: fine (B, 48, 16, 16) and
    coarse (B, 48, 8, 8), of the noisy picture alone; middle and mixed (B, 96, 8, 8) and drawn (B, 48, 16, 16), with the text;
    time (B, 192)."""

    def __init__(self, trunk, operations, dtype=None, device=None):
        super().__init__()
        self.enters, self.turns, self.leaves, self.edges, self.out = (deepcopy(part) for part in (
            trunk.input_blocks[3], trunk.output_blocks[0], trunk.output_blocks[1][:2], trunk.output_blocks[3], trunk.out))
        layer = lambda inputs, outputs, size: operations.Conv2d(inputs, outputs, size, 1, size // 2, dtype=dtype, device=device)
        self.middle, self.draws = layer(2 * CHANNELS, 2 * CHANNELS, 1), layer(2 * CHANNELS, 4 * CHANNELS, 3)
        self.empty = nn.Parameter(torch.zeros(1, LENGTH, WIDTH, dtype=dtype, device=device))  # what stands where text would
        self.options: dict = {}  # of its attention: what is done to the trunk's is not meant for it

    def forward(self, fine, coarse, middle, mixed, drawn, time):
        empty = self.empty.to(coarse).expand(len(coarse), -1, -1)
        below = self.enters(coarse, time, empty, self.options)
        h = self.turns(torch.cat([below + self.middle(middle), below], 1), time, empty, self.options)
        h = self.leaves(torch.cat([h, coarse], 1), time, empty, self.options)
        otherwise = F.pixel_shuffle(self.draws(h - mixed), 2)[..., :drawn.shape[2], :drawn.shape[3]]
        return self.out(self.edges(torch.cat([drawn + otherwise, fine], 1), time))
