"""Distilled guidance over time: FluxGuidance as a curve, for every row, on every model that takes it."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_flux import FluxDisableGuidance, FluxGuidance
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NEGATIVE, NODES, POSITIVE, node, one_level, prompt, sample, tiny_flux


def distilled(model, **knobs):
    return node(NODES["GuidanceDistilled"], model, **knobs)


def fixed(conditioning, scale):
    return FluxGuidance.execute(conditioning, scale).result[0]


TAKING = {"flux": {}, "kontext": {}, "flux2": {"guidance_embed": True}, "chroma": {}, "hunyuan_video": {}, "hunyuan_image": {}}


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("name", TAKING)
def test_a_constant_is_flux_guidance_on_both_prompts_bit_for_bit(name, cfg):
    kind, text = ARCHITECTURES[name], ARCHITECTURES[name].prompt
    model = kind.model(**TAKING[name])
    right = kind.sample(model, cfg=cfg, positive=fixed(text(1), 2.0), negative=fixed(text(2), 2.0))
    assert torch.equal(kind.sample(distilled(model, scale=2.0), cfg=cfg), right)
    assert not torch.equal(right, kind.sample(model, cfg=cfg))


class Told:
    """What a model is told in each forward, for each of its rows."""

    def __init__(self, model):
        self.model, self.values = model.clone(), []
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "told", self.hear)

    def hear(self, executor, *args, guidance=None, **kwargs):
        self.values.append(guidance.tolist())
        return executor(*args, guidance=guidance, **kwargs)


def test_every_row_of_every_step_is_told_what_the_curve_says():
    weak = Told(tiny_flux(seed=9))
    chained = node(NODES["GuidanceNegative"], tiny_flux(), negative=prompt(7), mode="weighted")
    chained = node(NODES["GuidancePAG"], node(NODES["GuidanceAutoguidance"], chained, weak_model=weak.model))
    told = Told(distilled(chained, scale="6, 4, 2, 0"))
    sample(told.model, steps=4, positive=fixed(POSITIVE, 9.0), negative=FluxDisableGuidance.execute(NEGATIVE).result[0])
    assert told.values == [[scale] * 4 for scale in (6.0, 4.0, 2.0, 0.0)]
    assert weak.values == [[scale] for scale in (6.0, 4.0, 2.0, 0.0)]


def test_outside_its_window_the_prompts_have_their_own():
    told = Told(distilled(distilled(tiny_flux(), scale=1.0), scale=5.0, start=0.5))
    sample(told.model, steps=4, positive=fixed(POSITIVE, 9.0))
    assert [set(values) for values in told.values] == [{1.0}, {1.0}, {5.0}, {5.0}]
    told = Told(distilled(tiny_flux(), scale=5.0, end=0.0))
    sample(told.model, steps=2, positive=fixed(POSITIVE, 9.0))
    assert [set(values) for values in told.values] == [{9.0, 3.5}] * 2


@pytest.mark.parametrize("model, says", [
    (one_level, "this model, a UNetModel, does not take its scale as an input; use the CFG node."),
    (ARCHITECTURES["wan"].model, "this model, a WanModel, does not take its scale as an input"),
    (lambda: ARCHITECTURES["flux"].model(guidance_embed=False), "this Flux was made without an input for its scale"),
    (ARCHITECTURES["longcat"].model, "this Flux was made without an input for its scale"),
], ids=["UNet", "Wan", "schnell", "LongCat"])
def test_a_model_that_takes_none_is_refused_at_the_node(model, says):
    with pytest.raises(ValueError, match=f"^GuidanceDistilled: {says}"):
        distilled(model())
