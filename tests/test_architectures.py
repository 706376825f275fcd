"""The tiny models of every architecture, packed audio and video latents, each stream guided for itself."""

import comfy.conds
import comfy.model_base
import comfy.nested_tensor
import comfy.sample
import pytest
import torch
from pack.nodes import STRATEGIES
from pack.nodes.elsewhere import TSG, RectCFGPlusPlus
from pack.nodes.prompts import Negative
from pack.nodes.scale import CFG, FBG, CFGPlusPlus
from pack.tests.architectures import ARCHITECTURES, patcher
from pack.tests.host import NEGATIVE, POSITIVE, node, prompt


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_tiny_model_samples_and_reads_its_prompt(architecture):
    """What the other tests rely on: finite numbers, every token and the mask matter, a batch is its samples."""
    model = architecture.model()
    one = architecture.sample(model)
    assert one.isfinite().all()
    assert (architecture.sample(model, positive=architecture.prompt(7)) - one).norm() > 1e-3 * one.norm()
    # Lumina 2 gets a mask from its text encoder and does nothing with it.
    if architecture.masked and architecture.base != "Lumina2":
        masked = architecture.sample(model, positive=architecture.prompt(1, kept=5))
        assert (masked - one).norm() > 1e-3 * one.norm()
    noise = architecture.noise(2)
    pair = architecture.sample(model, cfg=2.0, noise=noise)
    if not noise.is_nested:
        second = architecture.sample(model, cfg=2.0, noise=noise[1:])
        torch.testing.assert_close(pair[1:], second, rtol=1e-3, atol=1e-3 * float(pair.std()))


class TwoStreams(torch.nn.Module):
    """Video (B, 4, T, H, W) and audio (B, 2, N), each seen alone, so that a pack is exactly its two parts."""

    dtype = torch.float32

    def __init__(self, device=None, operations=None, **_):
        super().__init__()

    def forward(self, streams, t, context=None, **_):
        streams = streams if isinstance(streams, (list, tuple)) else [streams]
        words = context.mean(dim=(1, 2))
        out = [torch.sin(x + words.view(-1, *[1] * (x.ndim - 1))) * 2 for x in streams]
        return out if len(out) > 1 else out[0]


class PackedModel(comfy.model_base.BaseModel):
    def __init__(self, config, kind, device):
        super().__init__(config, kind, device, TwoStreams)

    def extra_conds(self, **kwargs):
        shapes = kwargs.get("latent_shapes") or []
        out = super().extra_conds(**kwargs)
        if len(shapes) > 1:
            out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        return out


def two_streams():
    return patcher(PackedModel, {})


def run(model, samples):
    zeros = comfy.nested_tensor.NestedTensor([torch.zeros_like(s) for s in samples.unbind()]) if samples.is_nested \
        else torch.zeros_like(samples)
    return comfy.sample.sample(model, samples, 4, 5.0, "euler", "normal", POSITIVE, NEGATIVE, zeros, disable_pbar=True, seed=1)


SHAPING = [cls for cls in STRATEGIES if cls.__module__.endswith(("answer", "direction"))]
# PAG needs attention; the others save by what all streams decide together, or read a prompt that is no picture's.
PACKED = [(cls, {}) for cls in (CFGPlusPlus, *SHAPING)]
PACKED += [(FBG, {"pi": 0.9}), (TSG, {}), (RectCFGPlusPlus, {})]
PACKED += [(CFG, {"start": 0.3, "end": 0.8}), (Negative, {"negative": prompt(7), "mode": "perp-neg"})]


@pytest.mark.parametrize("cls, knobs", PACKED, ids=lambda value: getattr(value, "node_id", ""))
def test_packed_video_and_audio_are_guided_each_for_itself(cls, knobs):
    """A reduction over the pack would let one stream's norm decide about the other's."""
    guided = node(cls, two_streams(), **knobs)
    video, audio = torch.randn(2, 4, 3, 5, 6), torch.randn(2, 2, 40)
    both = run(guided, comfy.nested_tensor.NestedTensor([video, audio])).unbind()
    for together, alone in zip(both, (run(guided, video), run(guided, audio))):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
