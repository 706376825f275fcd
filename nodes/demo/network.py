"""The demo model's network: ComfyUI's own UNet, made tiny: what patches a Stable Diffusion UNet works on it."""
from typing import Any

import torch.nn.functional as F
from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from .noise import sigma_table, timestep
from .text import WIDTH

PATCH = 2  # pixels per side that become channels, because most of the work is per position
CHANNELS = 48  # at 16x16; twice as many at 8x8

# Four transformers at 8x8, none at 16x16: at that size they cost too much training time.
ARCHITECTURE = dict(image_size=32 // PATCH, in_channels=3 * PATCH ** 2, out_channels=3 * PATCH ** 2,
                    model_channels=CHANNELS, channel_mult=[1, 2], num_res_blocks=[1, 1], num_head_channels=48,
                    use_spatial_transformer=True, context_dim=WIDTH, transformer_depth=[0, 1],
                    transformer_depth_middle=1, transformer_depth_output=[0, 0, 1, 1],
                    use_scale_shift_norm=True, legacy=False)


def eight_groups(norm: Any):
    """UNetModel asks for 32 groups, which 48 channels do not divide into."""
    class GroupNorm(norm):
        def __init__(self, num_groups, num_channels, **kwargs):
            super().__init__(8, num_channels, **kwargs)
    return GroupNorm


class DemoUNet(UNetModel):
    """Images (B, 3, H, W) in -1..1 and text (B, tokens, WIDTH); the weights predict v on the sigma table.

    prediction: "v", "eps" and "flow" are three ways to say the same thing. With h the length of the (signal, noise)
    vector, which is (1, sigma) for v and eps and (1 - s, s) for flow, and x in units of h:
    x0 = (signal x - noise v) / h.
    """

    def __init__(self, prediction="v", **kwargs):
        super().__init__(**kwargs)
        self.prediction = prediction

    def _forward(self, x, timesteps, *args, **kwargs):
        if self.prediction == "v":
            return self.velocity(x, timesteps, *args, **kwargs)
        table = sigma_table().to(x.device)
        if self.prediction == "eps":
            sigma = table[timesteps.round().long().clamp(0, len(table) - 1)].view(-1, 1, 1, 1).to(x)
            v = self.velocity(x, timesteps, *args, **kwargs)
            return (sigma * like(x, v) + v) / (1 + sigma ** 2).sqrt()  # (x - x0) / sigma, written without the division
        s = (timesteps / 1000).view(-1, 1, 1, 1)
        h = (s ** 2 + (1 - s) ** 2).sqrt()
        x = x / h.to(x)
        v = self.velocity(x, timestep(s.flatten() / (1 - s.flatten()), table), *args, **kwargs)
        return ((2 * s - 1) * like(x, v) + v) / h  # (x - x0) / s, likewise

    def velocity(self, x, timesteps, *args, **kwargs):
        """v (B, 3, H, W) of a unit-variance x at network times (B,)."""
        height, width = x.shape[2:]
        x = F.pixel_unshuffle(pad_to_patch_size(x, (PATCH, PATCH)), PATCH)
        return F.pixel_shuffle(self.in_patches(x, timesteps, *args, **kwargs), PATCH)[..., :height, :width]

    def in_patches(self, *args, **kwargs):
        """velocity with pixels as channels, (B, 12, H / 2, W / 2)."""
        return super()._forward(*args, **kwargs)


def like(x, v):
    """x for each of the predictions that stand behind each other in the channels of v: one, or two."""
    return x.repeat(1, v.shape[1] // x.shape[1], 1, 1)
