"""Autoguidance on real ComfyUI: the weak model's rows, its patches, and what it sees of the prompt."""


import comfy.clip_vision
import comfy.latent_formats
import comfy.samplers
import comfy.sd
import comfy.taesd.taesd
import pytest
import torch
from nodes import ConditioningSetArea, ConditioningSetTimestepRange
from pack.nodes.other_models import Autoguidance
from pack.nodes.perturbed import PAG
from pack.nodes.scale import CFG
from pack.tests.host import (
    CORE_GUIDERS,
    POSITIVE,
    TYPES,
    Counter,
    guided_by,
    latent,
    node,
    one_level,
    prompt,
    sample,
)
from pack.tests.measure import close, far

guiders = pytest.mark.parametrize("guider", CORE_GUIDERS.values(), ids=CORE_GUIDERS)


@pytest.fixture(scope="module")
def model():
    return one_level()


@pytest.fixture(scope="module")
def weak():
    return one_level(seed=9)


def by_hand(model, weak):
    """Autoguidance as the plainest of hooks: the weak model's own prediction in the place of the negative's."""
    patched = model.clone()
    weak.model.current_patcher = weak

    def batch(args):
        cond = [args["conds"][0]]
        ask = lambda m: comfy.samplers.calc_cond_batch(
            m, cond, args["input"], args["sigma"], {"transformer_options": {}}
        )[0]
        return [ask(args["model"]), ask(weak.model)]

    patched.set_model_sampler_calc_cond_batch_function(batch)
    return patched


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_autoguidance_is_cfg_with_the_weak_model_in_the_place_of_the_negative(kind, batch):
    model, weak = one_level(kind), one_level(kind, seed=9)
    guided = sample(node(Autoguidance, model, weak_model=weak), cfg=2.1, batch=batch)
    close(guided, sample(by_hand(model, weak), cfg=2.1, batch=batch))
    far(guided, sample(model, cfg=2.1, batch=batch))


def test_a_sampler_that_reads_the_negative_reads_the_weak_model(model, weak):
    ours = Counter(node(Autoguidance, model, weak_model=weak))
    how = dict(cfg=0.8, sampler="euler_cfg_pp")
    close(sample(ours.model, **how), sample(by_hand(model, weak), **how))
    assert ours.rows == 6  # 12 before, for a negative that only the sampler saw


@pytest.mark.parametrize(
    "cfg, share, rows, weak_rows",
    [(2.1, 1.0, 6, 6), (2.1, 0.5, 12, 6), (2.1, 0.0, 12, 0), (1.0, 1.0, 6, 0), (1.0, 0.5, 6, 0)],
)
def test_rows_of_both_models(cfg, share, rows, weak_rows, model, weak):
    main, second = Counter(model), Counter(weak)
    sample(node(Autoguidance, main.model, weak_model=second.model, share=share), cfg=cfg)
    assert (main.rows, main.calls) == (rows, 6)
    assert (second.rows, second.calls) == (weak_rows, weak_rows)


def test_half_from_the_weak_model_is_half_way_in_every_evaluation(model, weak):
    """One evaluation is linear in the share, so a run of one step is."""
    at = {
        share: sample(node(Autoguidance, model, weak_model=weak, share=share), cfg=3.0, steps=1)
        for share in (0.0, 0.5, 1.0)
    }
    close(at[0.5], (at[0.0] + at[1.0]) / 2)
    assert torch.equal(at[0.0], sample(model, cfg=3.0, steps=1))


def test_the_models_own_twin_as_weak_model_is_no_guidance(model):
    close(sample(node(Autoguidance, model, weak_model=one_level()), cfg=5.0), sample(model, cfg=1.0))


def test_a_lora_on_the_same_checkpoint_is_loaded_a_second_time(model):
    weak = model.clone()
    with pytest.raises(ValueError, match="one loaded model"):
        node(Autoguidance, model, weak_model=weak)
    if not hasattr(weak, "cached_patcher_init"):
        return  # a host without a way to load a model again
    weak.cached_patcher_init = (lambda disable_dynamic=False: one_level(), ())
    name = "diffusion_model.out.2.weight"
    difference = torch.randn_like(model.model.state_dict()[name]) / 10
    assert weak.add_patches({name: ("diff", (difference,))}) == [name]
    second = one_level()
    with torch.no_grad():
        second.model.diffusion_model.out[2].weight += difference
    close(sample(node(Autoguidance, model, weak_model=weak), cfg=3.0), sample(by_hand(model, second), cfg=3.0), 1e-4)
    assert torch.equal(sample(model), sample(one_level()))


def test_models_of_different_families_are_refused_in_one_sentence(model, weak):
    with pytest.raises(ValueError, match="no common noise levels") as error:
        node(Autoguidance, model, weak_model=one_level("flow"))
    assert "\n" not in str(error.value)
    other = one_level(seed=9)
    other.model.latent_format = comfy.latent_formats.SD3()
    with pytest.raises(ValueError, match="SD3 latents and model on SD15"):
        node(Autoguidance, model, weak_model=other)
    far(
        sample(node(Autoguidance, model, weak_model=one_level("v")), cfg=3.0), sample(model, cfg=1.0)
    )  # v and eps fit


def test_the_weak_model_keeps_its_own_patches_and_ignores_guidance_of_its_own(model, weak):
    halved = weak.clone()
    halved.set_model_unet_function_wrapper(
        lambda apply, args: apply(args["input"], args["timestep"], **args["c"]) / 2
    )
    far(
        sample(node(Autoguidance, model, weak_model=halved), cfg=3.0),
        sample(node(Autoguidance, model, weak_model=weak), cfg=3.0),
    )
    guided = node(PAG, node(CFG, weak, scale="9"))
    assert torch.equal(
        sample(node(Autoguidance, model, weak_model=guided), cfg=3.0),
        sample(node(Autoguidance, model, weak_model=weak), cfg=3.0),
    )


def test_two_weak_models(model, weak):
    third = one_level(seed=10)
    both = node(Autoguidance, node(Autoguidance, model, weak_model=weak, share=0.5), weak_model=third, share=0.5)
    second = Counter(both)
    sample(second.model, cfg=2.0)
    assert (second.rows, second.calls) == (12, 6)
    far(sample(both, cfg=2.0), sample(node(Autoguidance, model, weak_model=weak, share=0.5), cfg=2.0))


@guiders
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_weak_model_under_every_guider(guider, share, model, weak):
    patched = node(Autoguidance, model, weak_model=weak, share=share)
    first, second = (guided_by(guider(patched), steps=4, size=8) for _ in range(2))
    assert first.isfinite().all()
    assert torch.equal(first, second)


def test_the_weak_model_sees_the_areas_masks_and_ranges_of_the_prompt(model):
    left = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0]
    late = ConditioningSetTimestepRange().set_range(prompt(8), 0.4, 1.0)[0]
    positive = left + late
    twin = node(Autoguidance, model, weak_model=one_level())
    close(sample(twin, cfg=5.0, positive=positive), sample(model, cfg=1.0, positive=positive))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    inpainted = dict(image=latent(seed=8), noise_mask=mask)
    close(sample(twin, cfg=5.0, **inpainted), sample(model, cfg=1.0, **inpainted))


def test_nothing_is_left_behind_in_the_weak_model(model, weak):
    before = {name: value.clone() for name, value in weak.model.state_dict().items()}
    options = repr(sorted(weak.model_options["transformer_options"]))
    sample(node(Autoguidance, model, weak_model=weak), cfg=3.0)
    assert all(torch.equal(before[name], value) for name, value in weak.model.state_dict().items())
    assert repr(sorted(weak.model_options["transformer_options"])) == options
    assert weak.model.current_patcher is None


def test_the_rows_of_a_pag_branch_still_share_the_main_models_forward(model, weak):
    counter = Counter(node(PAG, node(Autoguidance, model, weak_model=weak)))
    sample(counter.model, cfg=2.0)
    assert (counter.rows, counter.calls) == (12, 6)
