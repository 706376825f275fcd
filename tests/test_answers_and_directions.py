"""What reshapes the answer or edits the direction, on real ComfyUI: pixels, memories, and standing still."""

import pytest
import torch
from pack.nodes.answer import DynamicThreshold
from pack.nodes.direction import APG, CFGZeroStar, Momentum
from pack.nodes.scale import BetaCFG
from pack.tests.host import Counter, node, one_level, sample


def test_auto_takes_pixels_for_pixels(demo):
    how = dict(noise=demo.noise(1), positive=demo.encode("a big red star on white"), negative=demo.encode(""), steps=4)
    assert sample(demo.model, **how).abs().max() > 1 >= sample(node(DynamicThreshold, demo.model), **how).abs().max()
    model = one_level()
    found, latents, pixels = (sample(node(DynamicThreshold, model, **form)) for form in ({}, {"form": "latents"}, {"form": "pixels"}))
    assert torch.equal(found, latents)
    assert not torch.equal(found, pixels)


def test_zero_init_stands_still_in_a_flow_model_at_any_cfg():
    model = one_level("flow")
    for cfg, rows in ((7.0, (1, 1, 2, 2, 2, 2)), (1.0, (1,) * 6)):
        counter = Counter(node(CFGZeroStar, model, zero_steps=2))
        seen = []
        sample(counter.model, cfg=cfg, callback=lambda step, denoised, x, total: seen.append(x.clone()))
        assert torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2]) and not torch.equal(seen[2], seen[3])
        assert (counter.rows, counter.calls) == (sum(rows), 6)


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_sde"])
@pytest.mark.parametrize("cls", [APG, CFGZeroStar, BetaCFG, Momentum], ids=lambda cls: cls.node_id)
def test_what_counts_steps_runs_with_samplers_that_evaluate_a_step_more_than_once(cls, sampler):
    guided = node(cls, one_level("flow"))
    first = sample(guided, sampler=sampler, steps=4)
    assert first.isfinite().all() and torch.equal(sample(guided, sampler=sampler, steps=4), first)


def test_momentum_guidance_costs_no_row_at_cfg_1_and_still_works():
    model = one_level("flow")
    counter = Counter(node(Momentum, model))
    assert not torch.equal(sample(counter.model, cfg=1.0), sample(model, cfg=1.0))
    assert (counter.rows, counter.calls) == (6, 6)
