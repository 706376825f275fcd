"""On real ComfyUI: what saving strategies save, weak models, nulls, noise on the prompt, classifiers."""

import json
import logging
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import comfy.clip_vision
import comfy.latent_formats
import comfy.samplers
import comfy.sd
import comfy.taesd.taesd
import folder_paths
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from nodes import ConditioningSetArea, ConditioningSetTimestepRange, ConditioningZeroOut
from pack.guidance.classifier import gradient
from pack.guidance.core import Timeline
from pack.lab import demo as lab_demo
from pack.nodes.bridge.evaluation import Evaluation
from pack.nodes.bridge.guider import embedded
from pack.nodes.demo import judge
from pack.nodes.demo.classifier import DemoClassifier, Judged
from pack.nodes.demo.model import load
from pack.nodes.direction import APG, FDG, TCFG, AutoRange, CFGZeroStar, FreSca, PerpCFG, PowerLaw
from pack.nodes.fewer_rows import Adaptive, Alternate, Budget, Compress
from pack.nodes.likeness import LikenessNode
from pack.nodes.other_models import Autoguidance, Classifier
from pack.nodes.perturbed import PAG
from pack.nodes.prompts import CADS, Negative, Null, from_prompt, independent, mean, zeros
from pack.nodes.scale import CFG
from pack.tests.host import (
    NEGATIVE,
    POSITIVE,
    TYPES,
    Counter,
    basic_guider,
    cfg_guider,
    dual_guider,
    guided_by,
    latent,
    node,
    perp_neg_guider,
    prompt,
    sample,
    tiny_model,
)
from pack.tests.test_shaping_nodes import to_api
from safetensors.torch import save_file

SAVING = {
    "adaptive": (Adaptive, {"threshold": 0.5}),
    "alternate": (Alternate, {}),
    "compress": (Compress, {"share": 0.5}),
    "budget": (Budget, {"rows": 9}),
}
saving = pytest.mark.parametrize("name", SAVING)
GUIDERS = {"cfg": cfg_guider, "basic": basic_guider, "dual": dual_guider, "perp-neg": perp_neg_guider}
guiders = pytest.mark.parametrize("guider", GUIDERS.values(), ids=GUIDERS)


@pytest.fixture(scope="module")
def model():
    return tiny_model("eps")


@pytest.fixture(scope="module")
def weak():
    return tiny_model("eps", seed=9)


def close(a, b, relative=1e-5):
    assert float((a - b).abs().max() / b.abs().max()) <= relative


def far(a, b):
    assert float((a - b).abs().max() / b.abs().max()) > 1e-2


def counted(model, **how):
    counter = Counter(model)
    answer = sample(counter.model, **how)
    return answer, counter.rows, counter.calls


# ------------------------------------------------------------------------------------------------ fewer evaluations


@pytest.mark.parametrize(
    "cls, knobs, rows",
    [
        (Alternate, {}, 9),
        (Alternate, {"every": 3}, 8),
        (Alternate, {"start": 0.5}, 10),
        (Compress, {"share": 0.5}, 9),
        (Compress, {"share": 0.2}, 7),
        (Compress, {"share": 0.5, "power": 3.0}, 8),
        (Budget, {"rows": 9}, 9),
        (Budget, {"rows": 7, "spend": "even"}, 7),
        (Budget, {"rows": 2}, 6),
    ],
    ids=str,
)
def test_rows_are_what_the_page_promises(cls, knobs, rows, model):
    assert counted(node(cls, model, **knobs))[1:] == (rows, 6)


def test_adaptive_guidance_takes_one_row_from_the_step_after_agreement(model):
    """Found by hand from the two predictions of every step of a plain run, until the first that agrees."""
    ratios = []

    def look(args):
        c, u = args["cond_denoised"], args["uncond_denoised"]
        ratios.append(float((c - u).norm() / c.norm()))
        return args["denoised"]

    looking = model.clone()
    looking.set_model_sampler_post_cfg_function(look)
    plain = sample(looking)
    for threshold in (min(ratios) * 0.99, *(ratio * 1.01 for ratio in ratios)):
        agreed = next((i for i, ratio in enumerate(ratios) if ratio < threshold), 6)
        answer, rows, calls = counted(node(Adaptive, model, threshold=threshold))
        assert (rows, calls) == (min(12, 6 + agreed + 1), 6)
        if agreed == 6:
            assert torch.equal(answer, plain)


@saving
def test_a_batch_is_its_pictures_made_alone(name, model):
    cls, knobs = SAVING[name]
    patched, noise = node(cls, model, **knobs), latent(3)
    whole = sample(patched, noise=noise)
    for i in range(3):
        close(whole[i : i + 1], sample(patched, noise=noise[i : i + 1]))


@saving
@guiders
def test_every_guider_and_a_second_order_sampler(name, guider, model):
    cls, knobs = SAVING[name]
    for sampler in ("euler", "heun", "dpmpp_2m", "euler_cfg_pp"):
        assert guided_by(guider(node(cls, model, **knobs)), sampler).isfinite().all()


def test_left_out_steps_are_cond_alone(model):
    """Skipping all but the first step is cfg at the first step and 1 after it."""
    close(sample(node(Alternate, model, every=100)), sample(node(CFG, model, scale="0:7, 1:1 step steps")), 1e-6)


def test_saving_does_not_depend_on_where_the_scale_is_set(model):
    first = node(CFG, node(Alternate, model), scale="3")
    last = node(Alternate, node(CFG, model, scale="3"))
    assert torch.equal(sample(first), sample(last))
    assert counted(first)[1:] == (9, 6)
    close(sample(first), sample(node(Alternate, model), cfg=3.0), 1e-6)


@pytest.mark.parametrize("cls, knobs, rows", [(Alternate, {}, 3), (Compress, {"share": 0.5}, 3), (Adaptive, {"threshold": 2.0}, 1)],
                         ids=["alternate", "compress", "adaptive"])
def test_what_leaves_out_the_negative_leaves_out_the_weak_models_row(cls, knobs, rows, model, weak):
    counter = Counter(weak)
    patched = node(cls, node(Autoguidance, model, weak_model=counter.model), **knobs)
    answer, own, calls = counted(patched)
    assert (counter.rows, own, calls) == (rows, 6, 6)
    if cls is Alternate:
        close(answer, sample(node(CFG, patched, scale="7"), cfg=1.0), 1e-6)  # wherever the scale comes from


@pytest.mark.parametrize("order", [0, 1])
def test_where_a_step_needs_the_negative_nothing_is_left_out(order, model):
    weighted = lambda m: node(Negative, m, negative=prompt(7), mode="weighted")
    patched = weighted(node(Compress, model, share=0.5)) if order else node(Compress, weighted(model), share=0.5)
    answer, rows, calls = counted(patched)
    assert (rows, calls) == (18, 6)
    assert torch.equal(answer, sample(weighted(model)))


def test_on_a_trained_model_with_many_steps_reusing_the_direction_is_nearer_to_cfg_than_leaving_it_out(demo):
    how = dict(cfg=2.5, steps=32, noise=demo.noise(2), positive=demo.encode("a small red circle on blue"))
    how["negative"] = demo.encode("")
    plain = sample(demo.model, **how)
    error = {
        reuse: float((sample(node(Compress, demo.model, share=0.5, reuse=reuse), **how) - plain).norm())
        for reuse in (0.0, 1.0)
    }
    assert error[1.0] < error[0.0] / 2


def test_packed_streams_leave_the_negative_out_only_together():
    leaves_out, keeps = ([Timeline((2.0, 1.0, 0.0)).moment(2.0, 7.0)] for _ in range(2))
    leaves_out = [replace(leaves_out[0], skip=True)]
    run = SimpleNamespace(guider=SimpleNamespace(conds={}))
    for moments, skips in [(leaves_out * 2, True), (leaves_out + keeps, False), (keeps + leaves_out, False)]:
        assert all(moment.skips is skips for moment in Evaluation(run, moments, None).moments)


def test_a_negative_that_is_out_of_its_range_does_not_stop_adaptive_guidance(model):
    late = ConditioningSetTimestepRange().set_range(NEGATIVE, 0.5, 1.0)[0]
    assert torch.equal(
        sample(node(Adaptive, model, threshold=0.001), negative=late),
        sample(node(Adaptive, model, threshold=0.0), negative=late),
    )


# ------------------------------------------------------------------------------------------------ weak models


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
    model, weak = tiny_model(kind), tiny_model(kind, seed=9)
    guided = sample(node(Autoguidance, model, weak_model=weak), cfg=2.1, batch=batch)
    close(guided, sample(by_hand(model, weak), cfg=2.1, batch=batch))
    far(guided, sample(model, cfg=2.1, batch=batch))


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
    close(sample(node(Autoguidance, model, weak_model=tiny_model("eps")), cfg=5.0), sample(model, cfg=1.0))


def test_a_lora_on_the_same_checkpoint_is_loaded_a_second_time(model):
    weak = model.clone()
    with pytest.raises(ValueError, match="one loaded model"):
        node(Autoguidance, model, weak_model=weak)
    if not hasattr(weak, "cached_patcher_init"):
        return  # a host without a way to load a model again
    weak.cached_patcher_init = (lambda disable_dynamic=False: tiny_model("eps"), ())
    name = "diffusion_model.out.2.weight"
    difference = torch.randn_like(model.model.state_dict()[name]) / 10
    assert weak.add_patches({name: ("diff", (difference,))}) == [name]
    second = tiny_model("eps")
    with torch.no_grad():
        second.model.diffusion_model.out[2].weight += difference
    close(sample(node(Autoguidance, model, weak_model=weak), cfg=3.0), sample(by_hand(model, second), cfg=3.0), 1e-4)
    assert torch.equal(sample(model), sample(tiny_model("eps")))


def test_models_of_different_families_are_refused_in_one_sentence(model, weak):
    with pytest.raises(ValueError, match="no common noise levels") as error:
        node(Autoguidance, model, weak_model=tiny_model("flow"))
    assert "\n" not in str(error.value)
    other = tiny_model("eps", seed=9)
    other.model.latent_format = comfy.latent_formats.SD3()
    with pytest.raises(ValueError, match="SD3 latents and model on SD15"):
        node(Autoguidance, model, weak_model=other)
    far(
        sample(node(Autoguidance, model, weak_model=tiny_model("v")), cfg=3.0), sample(model, cfg=1.0)
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
    third = tiny_model("eps", seed=10)
    both = node(Autoguidance, node(Autoguidance, model, weak_model=weak, share=0.5), weak_model=third, share=0.5)
    second = Counter(both)
    sample(second.model, cfg=2.0)
    assert (second.rows, second.calls) == (12, 6)
    far(sample(both, cfg=2.0), sample(node(Autoguidance, model, weak_model=weak, share=0.5), cfg=2.0))


@guiders
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_weak_model_under_every_guider(guider, share, model, weak):
    patched = node(Autoguidance, model, weak_model=weak, share=share)
    assert guided_by(guider(patched)).isfinite().all()
    assert torch.equal(guided_by(guider(patched)), guided_by(guider(patched)))


def test_the_weak_model_sees_the_areas_masks_and_ranges_of_the_prompt(model):
    left = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0]
    late = ConditioningSetTimestepRange().set_range(prompt(8), 0.4, 1.0)[0]
    positive = left + late
    twin = node(Autoguidance, model, weak_model=tiny_model("eps"))
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


# ------------------------------------------------------------------------------------------------ the null prompt


def like(made, values):
    return [[made(values[0][0]), {**values[0][1]}]]


@pytest.mark.parametrize(
    "null, negative",
    [
        ("zeros", ConditioningZeroOut().zero_out(POSITIVE)[0]),
        ("mean", like(lambda y: y.mean(1, keepdim=True).repeat(1, y.shape[1], 1), POSITIVE)),
        ("independent", like(lambda y: independent(5, "cross_attn", y), POSITIVE)),
    ],
    ids=["zeros", "mean", "independent"],
)
def test_a_null_is_the_negative_that_one_would_make_by_hand(null, negative, model):
    answer, rows, calls = counted(node(Null, model, null=null, seed=5))
    assert (rows, calls) == (12, 6)
    assert torch.equal(answer, sample(model, negative=negative))
    assert torch.equal(sample(node(Null, model, null=null, seed=5), cfg=1.0), sample(model, cfg=1.0))


def test_tokens_and_pooled_embedding_are_both_replaced_and_everything_else_stays():
    tokens, pooled, mask = torch.randn(1, 6, 16), torch.randn(1, 8), torch.ones(1, 6)
    entry = {
        "cross_attn": tokens,
        "pooled_output": pooled,
        "attention_mask": mask,
        "strength": 0.5,
        "uuid": 1,
        "model_conds": {},
    }
    for null in (zeros, mean, lambda *given: independent(3, *given)):
        (made,) = from_prompt(null, {"positive": [entry]})
        assert made["cross_attn"].shape == tokens.shape and made["pooled_output"].shape == pooled.shape
        assert not torch.equal(made["cross_attn"], tokens) and not torch.equal(made["pooled_output"], pooled)
        assert made["attention_mask"] is mask and made["strength"] == 0.5 and made["uuid"] != 1
    assert entry["cross_attn"] is tokens
    (made,) = from_prompt(zeros, {"positive": [entry]})
    assert not made["cross_attn"].any() and not made["pooled_output"].any()
    (made,) = from_prompt(
        lambda *given: independent(3, *given),
        {"positive": [{**entry, "cross_attn": 2 + 3 * torch.randn(1, 400, 64)}]},
    )
    assert made["cross_attn"].mean() == pytest.approx(2, abs=0.1) and made["cross_attn"].std() == pytest.approx(
        3, abs=0.1
    )


def test_the_null_has_the_areas_of_the_prompt(model):
    positive = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0] + prompt(8)
    negative = ConditioningZeroOut().zero_out(positive)[0]
    close(sample(node(Null, model), positive=positive), sample(model, positive=positive, negative=negative))


def test_before_its_window_and_after_it_the_samplers_negative_is_the_negative(model):
    whole, early, off = (sample(node(Null, model, end=end)) for end in (1.0, 0.5, 0.0))
    assert torch.equal(off, sample(model))
    far(whole, off)
    far(early, off)
    far(early, whole)


@pytest.fixture
def embeddings(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "embeddings", ([str(tmp_path)], {".safetensors", ".pt"}))
    folder_paths.filename_list_cache.pop("embeddings", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("embeddings", None)


def test_a_learned_null_comes_from_a_file_in_the_embeddings_folder(embeddings, model):
    tokens = prompt(9)[0][0]
    save_file({"tokens": tokens}, embeddings / "null.safetensors")
    (embeddings / "old.pt").write_bytes(b"a pickle")
    chosen = next(given for given in Null.define_schema().inputs if given.id == "embedding")
    assert chosen.options == ["none", "null.safetensors"]
    null = dict(null="file", embedding="null.safetensors")
    close(sample(node(Null, model, **null)), sample(model, negative=prompt(9)))
    save_file({"tokens": POSITIVE[0][0][0]}, embeddings / "null.safetensors")  # the prompt itself is no null
    close(sample(node(Null, model, **null)), sample(model, cfg=1.0), 1e-4)


def test_a_file_that_cannot_be_a_null_is_refused_in_one_sentence(embeddings, model):
    save_file({"tokens": torch.zeros(4, 20)}, embeddings / "wide.safetensors")
    save_file({"bias": torch.zeros(16)}, embeddings / "flat.safetensors")
    for name, sentence in [
        ("none", "embedding is 'none'; it has to be a .safetensors"),
        ("old.pt", "embedding is 'old.pt'; it has to be one of"),
        ("absent.safetensors", "has to be one of"),
        ("../secret.safetensors", "has to be one of"),
        ("wide.safetensors", "20 wide and this model's prompts are 16"),
        ("flat.safetensors", "no tensor"),
    ]:
        with pytest.raises(ValueError, match=sentence) as error:
            sample(node(Null, model, null="file", embedding=name))
        assert "\n" not in str(error.value)


def test_the_empty_prompt_needs_a_text_encoder_and_is_what_it_makes_of_nothing(demo):
    with pytest.raises(ValueError, match="connect clip"):
        node(Null, demo.model, null="empty prompt")
    pictures = dict(
        positive=demo.encode("a big red star on white"), negative=demo.encode("blue"), noise=demo.noise(2)
    )
    answer = sample(node(Null, demo.model, null="empty prompt", clip=demo.clip), **pictures)
    assert torch.equal(answer, sample(demo.model, **{**pictures, "negative": demo.encode("")}))
    far(answer, sample(demo.model, **pictures))


# ------------------------------------------------------------------------------------------------ noise on the prompt


def contexts(model, batch=2, **how):
    """What every forward of a run is given as prompt: [(cond_or_uncond, (rows, tokens, width)), ...]."""
    seen = []

    def look(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        seen.append((transformer_options["cond_or_uncond"], c_crossattn.clone()))
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    looking = model.clone()
    looking.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "look", look)
    sample(looking, batch=batch, **how)
    return seen


def test_only_the_prompt_is_noised_each_picture_by_itself_and_not_after_tau1(model):
    seen = contexts(node(CADS, model, noise=0.2, start=0.5))
    plain = contexts(model)
    assert len(seen) == len(plain) == 6
    different = []
    for (order, noised), (_, clean) in zip(seen, plain):
        assert order == [1, 0]
        assert torch.equal(noised[:2], clean[:2])  # the negative
        different.append(not torch.equal(noised[2:], clean[2:]))
        if different[-1]:
            assert (noised[2] - noised[3]).abs().max() > 1e-3
    assert different == [True, True, True, False, False, False]  # 1, .8, .6, .4, .2, 0 of the time remain


def test_cads_changes_the_picture_with_the_seed_and_only_with_it(model):
    one, two = (sample(node(CADS, model, seed=seed)) for seed in (1, 2))
    far(one, two)
    assert torch.equal(one, sample(node(CADS, model, seed=1)))
    close(
        sample(node(CADS, model, seed=1), noise=latent(3))[:1], sample(node(CADS, model, seed=1), noise=latent(3)[:1])
    )


def test_a_perturbed_branch_starts_from_the_same_noised_prompt(model):
    for order, rows in contexts(node(PAG, node(CADS, model)), batch=1):
        assert order == [1, 0, 0]
        assert torch.equal(rows[1], rows[2])


def test_every_region_is_noised(model):
    positive = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0] + prompt(8)
    clean = {tuple(entry[0][0].flatten().tolist()) for entry in positive}
    first = contexts(node(CADS, model), batch=1, positive=positive)[0]
    for order, rows in [first]:
        for kind, row in zip(order, rows):
            assert kind == 1 or tuple(row.flatten().tolist()) not in clean


def test_a_model_without_cross_attention_says_so(model, caplog, monkeypatch):
    assert embedded([{"model_conds": {}}], lambda y: y, 1) is None
    monkeypatch.setattr("pack.nodes.bridge.evaluation.embedded", lambda *given: None)
    with caplog.at_level(logging.WARNING):
        answer = sample(node(CADS, model))
    assert torch.equal(answer, sample(model))
    assert sum("The prompt was not changed" in record.message for record in caplog.records) == 1


def test_tau1_above_tau2_is_refused(model):
    with pytest.raises(ValueError, match="start has to be the smaller"):
        node(CADS, model, start=0.9, full=0.6)


# ------------------------------------------------------------------------------------------------ classifiers


@pytest.fixture(scope="module")
def demo():
    model, clip, vae = load()
    return SimpleNamespace(
        model=model,
        clip=clip,
        vae=vae,
        encode=lambda text: clip.encode_from_tokens_scheduled(clip.tokenize(text)),
        noise=lambda n: torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(4)),
    )


def test_which_editors_of_the_direction_care_for_their_order(demo):
    """As the readme has it."""
    positive, negative, noise = demo.encode("a small red circle on blue"), demo.encode(""), demo.noise(2)

    def apart(*pair):
        one, other = (sample(node(second, node(first, demo.model)), cfg=6.0, steps=6, noise=noise, positive=positive,
                             negative=negative) for first, second in (pair, pair[::-1]))
        return float((one - other).norm() / one.norm())

    assert max(apart(*pair) for pair in combinations((PerpCFG, CFGZeroStar, TCFG, FDG, FreSca), 2)) < 0.05
    assert apart(PowerLaw, AutoRange) > 0.4 and apart(APG, AutoRange) > 0.2 and apart(FDG, PowerLaw) > 0.1


def test_of_few_steps_none_is_to_be_lost_by_standing_still():
    """Why CFG-Zero* does not, unless told to: the share of pictures with the background that was asked for."""
    flow, clip, vae = load("flow")
    colors = ("red", "blue", "green", "yellow")
    prompts = [f"a big {colors[i % 4]} circle on {colors[(i + 1 + i // 12) % 4]}" for i in range(36)]
    tokens = [clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0] for text in (*prompts, "")]
    positive, negative = [[torch.cat(tokens[:-1]), {}]], [[tokens[-1].expand(36, -1, -1), {}]]
    noise = torch.randn(36, 3, 32, 32, generator=torch.Generator().manual_seed(4))

    def right(zero_steps):
        patched = node(CFGZeroStar, flow, zero_steps=zero_steps)
        made = vae.decode(sample(patched, cfg=3.0, noise=noise, positive=positive, negative=negative)).movedim(-1, 1)
        seen = judge.load().read(made).background
        return sum(judge.BACKGROUNDS[int(s)] == text.split()[-1] for s, text in zip(seen, prompts)) / 36

    assert right(0) > 0.8 and right(1) < 0.6


@pytest.mark.parametrize("attribute, value", [("color", "green"), ("shape", "ring"), ("background", "white")])
def test_the_demo_classifier_turns_unprompted_pictures_into_what_it_is_told(attribute, value, demo):
    with torch.inference_mode():  # as the host runs its nodes
        wanted = DemoClassifier.execute(attribute=attribute, value=value).result[0]
        how = dict(cfg=1.0, steps=12, noise=demo.noise(12), positive=demo.encode(""), negative=demo.encode(""))
        guided, plain = (
            sample(m, **how) for m in (node(Classifier, demo.model, classifier=wanted, scale=20.0), demo.model)
        )
    found = [
        (
            getattr(judge.load().read((pictures.clone() + 1) / 2), attribute)
            == getattr(judge.CHOICES, attribute).index(value)
        )
        .float()
        .mean()
        for pictures in (guided, plain)
    ]
    assert found[0] > 0.7 and found[0] > found[1] + 0.4


def test_the_demo_classifier_is_the_judge_at_any_size():
    pictures = 2 * torch.rand(3, 3, 32, 32) - 1
    rows, _ = judge.load()((pictures + 1) / 2)
    for i in range(4):
        close(Judged(i, 1)(pictures, 1.0), rows[i].log_softmax(1)[:, 1])
    bigger = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    close(Judged(1, 2)(bigger, 1.0), Judged(1, 2)(pictures, 1.0))


def test_a_value_that_the_attribute_does_not_have_is_refused():
    with pytest.raises(ValueError, match="one of circle, square") as error:
        DemoClassifier.execute(attribute="shape", value="red")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["x0", "x"])
@guiders
def test_a_users_classifier_under_every_guider_costs_no_rows(where, guider, model):
    seen = []

    def likes_zero(latents, sigma):
        seen.append((latents.requires_grad, sigma))
        return -latents.square().flatten(1).sum(1) / 1000

    patched = node(Classifier, model, classifier=likes_zero, where=where)
    with torch.inference_mode():
        answer = guided_by(guider(patched))
    assert answer.isfinite().all() and len(seen) == 6 and all(grad for grad, _ in seen)
    assert seen[0][1] > seen[-1][1] > 0


# ------------------------------------------------------------------------------------------------ likeness

SEES = {
    "model_type": "clip_vision_model",
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "projection_dim": 16,
    "hidden_act": "quick_gelu",
}


def with_random_weights(module):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in module.parameters():
            wide = weight[0].numel() if weight.ndim > 1 else 1
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * wide**-0.5
                if weight.ndim > 1
                else torch.ones(weight.shape)
            )
    return module


def likeness(model, vae, picture):
    """A Likeness as the host makes it, in inference mode, of a CLIP vision model at a thousandth of its size."""
    with torch.inference_mode():
        clip_vision = comfy.clip_vision.ClipVisionModel(SEES)
        with_random_weights(clip_vision.model)
        return LikenessNode.execute(model, clip_vision, vae, picture, 100.0).result[0]


def test_likeness_is_clips_cosine_of_the_decoded_latents(demo):
    pictures = torch.rand(2, 32, 32, 3).mul(255).round() / 255  # whole colours, as the host rounds them to
    like = likeness(demo.model, demo.vae, pictures[:1])
    ask = like.clip_vision.encode_image
    with torch.inference_mode():
        expected = 100 * torch.cosine_similarity(
            *(ask(picture[None])["image_embeds"].float() for picture in pictures), dim=-1
        )
    with torch.no_grad():
        found = like(2 * pictures.movedim(-1, 1) - 1, 1.0)
    close(found, torch.tensor([100.0, float(expected)]), 1e-4)


@pytest.mark.parametrize("kind", ["pixels", "taesd"])
def test_the_gradient_of_likeness_is_its_slope(kind, demo, model):
    if kind == "pixels":
        host, vae, shape = demo.model, demo.vae, (2, 3, 32, 32)
    else:
        with torch.inference_mode():
            network = with_random_weights(comfy.taesd.taesd.TAESD())
            host, vae, shape = model, comfy.sd.VAE(sd=network.state_dict()), (2, 4, 8, 8)
    like = likeness(host, vae, torch.rand(1, 32, 32, 3))
    like.certainty = 1e4  # so that the slope stands out of float32's noise
    with torch.inference_mode():
        at, along = torch.randn(shape) / 3, torch.randn(shape)
        slope = (gradient(like, at, 1.0) * along).flatten(1).sum(1)
        step = 1e-3
        rise = (like(at + step * along, 1.0) - like(at - step * along, 1.0)) / (2 * step)
    assert slope.abs().min() > 0
    torch.testing.assert_close(slope, rise, rtol=0.05, atol=0.02 * float(slope.abs().max()))


def test_guided_pictures_are_more_alike_and_the_host_loads_what_it_takes(demo):
    picture = torch.zeros(1, 32, 32, 3) + torch.tensor([0.1, 0.8, 0.2])
    like = likeness(demo.model, demo.vae, picture)
    patched = node(Classifier, demo.model, classifier=like, scale=3.0)
    loaded = patched.get_nested_additional_models()
    assert [m.model for m in loaded] == [m.model for m in (demo.vae.patcher, like.clip_vision.patcher)]
    with torch.inference_mode():
        how = dict(cfg=1.0, noise=demo.noise(2), positive=demo.encode("a big ring"), negative=demo.encode(""))
        guided, plain = sample(patched, **how), sample(demo.model, **how)
        assert (like(guided, 0.0) > like(plain, 0.0)).all()
    weights = [*demo.vae.first_stage_model.parameters(), *like.clip_vision.model.parameters()]
    assert all(weight.grad is None for weight in weights)


def test_a_video_vae_is_refused(demo):
    with pytest.raises(ValueError, match="only pictures"):
        LikenessNode.execute(demo.model, None, SimpleNamespace(latent_dim=3), None, 100.0)


# ------------------------------------------------------------------------------------------------ the example workflow

WORKFLOW = Path(__file__).parent.parent / "example_workflows" / "fewer_rows_other_models.json"


def test_every_node_has_a_place_in_the_example_workflow_and_changes_the_picture_there():
    known = {**lab_demo.classes(), "PatchModelAddDownscale": PatchModelAddDownscale}
    workflow, results, pictures = to_api(json.loads(WORKFLOW.read_text()), known), {}, {}
    for entry in workflow.values():
        if entry["class_type"] == "KSampler":
            entry["inputs"] |= {"steps": 4, "cfg": 4.0}
        if entry["class_type"] == "EmptyLatentImage":
            entry["inputs"]["batch_size"] = 1
        if entry["class_type"] == "GuidanceAdaptive":
            entry["inputs"]["threshold"] = 1.0  # four steps are too few for the default to be reached in time
        if entry["class_type"] == "GuidanceBudget":
            entry["inputs"]["rows"] = 6
    for number, entry in workflow.items():
        if entry["class_type"] == "KSampler":
            patched = workflow[entry["inputs"]["model"][0]]
            pictures[patched["class_type"]] = lab_demo.evaluate(workflow, number, known, results)[0]["samples"]
    plain = pictures.pop("GuidanceDemoModel")
    assert set(pictures) == {cls.node_id for cls in (Adaptive, Alternate, Compress, Budget, Autoguidance, Classifier, Null, CADS)}
    for picture in pictures.values():
        assert picture.isfinite().all() and picture.shape == (1, 3, 32, 32)
        assert (picture - plain).abs().max() > 0.01
    assert "GuidanceDemoClassifier" in {entry["class_type"] for entry in workflow.values()}
