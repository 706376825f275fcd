"""The bridge on real ComfyUI: parity with core where core is right, every guider, every way to run a sampler."""

import gc
import logging
from weakref import ref

import comfy.model_management
import comfy.samplers
import comfy_extras.nodes_custom_sampler as core
import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from pack.guidance.core import Step
from pack.nodes.bridge.hooks import attach
from pack.nodes.bridge.run import Run
from pack.nodes.direction import PerpCFG
from pack.nodes.fewer_rows import Budget
from pack.nodes.perturbed import PAG
from pack.nodes.prompts import Negative
from pack.nodes.scale import CFG, CFGPlusPlus
from pack.tests.host import (
    EMPTY,
    NEGATIVE,
    NODES,
    POSITIVE,
    TYPES,
    Counter,
    basic_guider,
    cfg_guider,
    dual_guider,
    guided_by,
    latent,
    node,
    one_level,
    perp_neg_guider,
    prompt,
    ranged,
    sample,
    tiny_model,
)
from pack.tests.measure import close, far

kinds = pytest.mark.parametrize("kind", TYPES)
STRATEGIES = {"CFG": (CFG, {"scale": "3"}), "Negative": (Negative, {"negative": prompt(7), "mode": "weighted"}),
              "CFGPlusPlus": (CFGPlusPlus, {}), "PerpCFG": (PerpCFG, {}), "PAG": (PAG, {})}
strategies = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module")
def model():
    return one_level()


# ------------------------------------------------------------------------------------------------ neutrality

@kinds
def test_an_empty_chain_is_no_pack_bit_for_bit(kind):
    model = one_level(kind)
    assert torch.equal(sample(attach(model, "nothing", Step)), sample(model))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "dpmpp_sde", "euler_cfg_pp", "uni_pc", "dpm_adaptive", "ddim"])
def test_an_empty_chain_is_no_pack_with_any_sampler(model, sampler):
    assert torch.equal(sample(attach(model, "nothing", Step), sampler=sampler), sample(model, sampler=sampler))


# ------------------------------------------------------------------------------------------------ CFG and intervals

def test_the_node_scale_replaces_the_samplers(model):
    assert torch.equal(sample(node(CFG, model, scale="3.5"), cfg=7.0), sample(model, cfg=3.5))
    assert torch.equal(sample(node(CFG, model), cfg=3.5), sample(model, cfg=3.5))
    assert torch.equal(sample(node(CFG, node(CFG, model, scale="9"), scale="3.5")), sample(model, cfg=3.5))


if hasattr(core, "CFGOverride"):

    @kinds
    def test_an_interval_is_cores_cfg_override_outside_it(kind):
        model, override = one_level(kind), core.CFGOverride.execute
        cores = override(override(model, 1.0, 0.0, 0.2).result[0], 1.0, 0.7, 1.0).result[0]
        close(sample(node(CFG, model, start=0.2, end=0.7), steps=20), sample(cores, steps=20), 1e-6)


def test_an_interval_of_two_fifths_costs_28_rows_in_20_steps(model):
    counter = Counter(node(CFG, model, start=0.3, end=0.7))
    sample(counter.model, steps=20, scheduler="normal")
    assert (counter.rows, counter.calls) == (28, 20)


@kinds
def test_an_interval_in_sigma_is_the_same_interval_in_percent(kind):
    model = one_level(kind)
    sampling = model.get_model_object("model_sampling")
    high, low = (float(sampling.percent_to_sigma(p)) for p in (0.25, 0.65))
    percent = node(CFG, model, start=0.25, end=0.65)
    assert torch.equal(sample(node(CFG, model, start=high, end=low, unit="sigma")), sample(percent))


# ------------------------------------------------------------------------------------------------ CFG++

@kinds
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_cfgpp_with_plain_euler_is_cores_euler_cfg_pp(kind, strength):
    model = one_level(kind)
    ours = sample(node(CFGPlusPlus, model, strength=strength), sampler="euler", steps=20)
    close(ours, sample(model, cfg=strength, sampler="euler_cfg_pp", steps=20), 1e-5)


def test_cfgpp_with_plain_euler_ancestral_is_cores_own(model):
    ours = sample(node(CFGPlusPlus, model), sampler="euler_ancestral", steps=20)
    close(ours, sample(model, cfg=0.6, sampler="euler_ancestral_cfg_pp", steps=20), 1e-4)


@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_cfgpp_is_as_strong_with_every_sampler_as_with_the_first_order_one_of_its_kind(kind, monkeypatch):
    """The mean scale of a run. Between grid points it was twice that, and with noise of their own again twice."""
    scales, plan = [], Run.plan
    monkeypatch.setattr(Run, "plan", lambda run, *where: (moments := plan(run, *where), scales.append(moments[0].combined))[0])
    model = node(CFGPlusPlus, one_level(kind))

    def mean(sampler):
        scales.clear()
        sample(model, sampler=sampler, steps=10, size=8)
        return sum(scales) / len(scales)

    for first, others in {"euler": ("heun", "dpm_2", "dpmpp_2m"),
                          "euler_ancestral": ("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde",
                                              "seeds_2", "seeds_3")}.items():
        assert all(mean(other) == pytest.approx(mean(first), rel=0.2) for other in others)


@pytest.mark.parametrize("spend", ["first", "even"])
@pytest.mark.parametrize("sampler, evaluations", [("euler", 8), ("heun", 15), ("heunpp2", 21), ("dpmpp_sde", 15),
                                                  ("seeds_3", 22), ("dpm_fast", 8), ("euler_cfg_pp", 8),
                                                  ("dpmpp_2s_ancestral_cfg_pp", 15)])
def test_a_row_budget_holds_with_every_sampler(sampler, evaluations, spend, model):
    counter = Counter(node(Budget, model, rows=evaluations + 3, spend=spend))
    sample(counter.model, sampler=sampler, steps=8, size=8)
    assert counter.calls == evaluations
    assert evaluations + 3 - (sampler == "heunpp2") - 2 * (spend == "even") <= counter.rows <= evaluations + 3


@pytest.mark.parametrize("sampler, says", [("dpmpp_2m", "approximation"), ("heun", "approximation"),
                                           ("euler_cfg_pp", "already"), ("euler", None), ("ddim", None)])
def test_cfgpp_says_once_where_it_is_not_exact(model, sampler, says, caplog):
    answer = sample(node(CFGPlusPlus, model), sampler=sampler)
    assert answer.isfinite().all()
    warnings = [r.message for r in caplog.records if "CFG++" in r.message and r.levelno >= logging.WARNING]
    assert len(warnings) == (says is not None)
    assert says is None or says in warnings[0]


def test_cfgpp_does_not_double_a_sampler_that_already_does_it(model):
    ours = sample(node(CFGPlusPlus, model, strength=0.6), sampler="euler_cfg_pp", cfg=7.0)
    assert torch.equal(ours, sample(model, cfg=0.6, sampler="euler_cfg_pp"))


# ------------------------------------------------------------------------------------------------ PAG

@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg, rows", [(7.0, 3), (1.0, 2)])
def test_pag_is_cores_pag_in_one_call(model, batch, cfg, rows):
    ours, cores = Counter(node(PAG, model), batch), Counter(PerturbedAttentionGuidance.execute(model, 3.0).result[0], batch)
    answer = sample(ours.model, cfg=cfg, batch=batch)
    close(answer, sample(cores.model, cfg=cfg, batch=batch), 2e-4)
    far(answer, sample(model, cfg=cfg, batch=batch))
    assert (ours.rows, ours.calls) == (6 * rows, 6)
    assert (cores.rows, cores.calls) == (6 * rows, 12)


def test_pag_perturbs_only_its_rows_and_layers(model):
    """The host's own rows are bit-identical, and other layers are those of the unperturbed model."""
    plain = sample(model)
    assert torch.equal(sample(node(PAG, model, scale="0:0, 1:0")), plain)
    answers = [sample(node(PAG, model, layers=layers)) for layers in ("middle", "input.1", "output", "middle, input.1")]
    for i, answer in enumerate(answers):
        assert all(not torch.equal(answer, other) for other in answers[:i])


def test_attention_over_a_single_token_is_its_own_identity():
    """At 2x2 the middle block sees one token, whose attention is already the identity."""
    model = tiny_model()
    close(sample(node(PAG, model, layers="middle"), size=2), sample(model, size=2), 1e-5)


def test_pag_twice_with_the_same_layers_is_one_row(model):
    counter = Counter(node(PAG, node(PAG, model, scale=1.0), scale=2.0))
    close(sample(counter.model), sample(node(PAG, model, scale=3.0)), 1e-6)
    assert counter.rows == 18


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"no layer 'middle.1'; it has input.1.0, input.3.0, middle.0.0"):
        node(PAG, model, layers="middle.1")
    with pytest.raises(ValueError, match="at least one layer"):
        node(PAG, model, layers=" , ")


# ------------------------------------------------------------------------------------------------ negatives

def test_a_plain_negative_is_the_samplers_negative(model):
    counter = Counter(node(Negative, model, negative=EMPTY))
    assert torch.equal(sample(counter.model), sample(model, negative=EMPTY))
    assert (counter.rows, counter.calls) == (12, 6)


def test_perp_neg_is_cores_guider_with_one_sample(model):
    ours = guided_by(cfg_guider(node(Negative, model, negative=NEGATIVE, mode="perp-neg", weight=0.8), 5.0, negative=EMPTY))
    close(ours, guided_by(perp_neg_guider(model, 5.0, 0.8)), 1e-5)


def test_perp_neg_does_not_mix_samples(model):
    guided = node(Negative, model, negative=NEGATIVE, mode="perp-neg")
    both = sample(guided, noise=torch.cat([latent(1), latent(1, seed=6)]), negative=EMPTY)
    close(both[:1], sample(guided, noise=latent(1), negative=EMPTY), 1e-4)


def test_several_negatives_share_one_forward(model):
    guided = node(Negative, node(Negative, model, negative=prompt(8), mode="weighted"), negative=prompt(9), mode="perp-neg")
    counter = Counter(guided)
    sample(counter.model)
    assert (counter.rows, counter.calls) == (24, 6)


def test_a_delayed_negative_is_the_samplers_own_before_its_window(model):
    guided = node(Negative, model, negative=EMPTY, start=0.5)
    first = sample(guided, steps=20, last_step=8)
    assert torch.equal(first, sample(model, steps=20, last_step=8))
    far(sample(guided, steps=20), sample(model, steps=20))


def test_a_negative_with_hooks_is_refused(model):
    with pytest.raises(ValueError, match="hooks"):
        node(Negative, model, negative=[[torch.zeros(1, 6, 16), {"hooks": object()}]])


# ------------------------------------------------------------------------------------------------ guiders

def guiders(model):
    return {
        "CFGGuider": cfg_guider(model), "BasicGuider": basic_guider(model), "DualCFGGuider": dual_guider(model),
        "nested DualCFGGuider": dual_guider(model, nested=True), "PerpNegGuider": perp_neg_guider(model),
        **({"DualModelGuider": dual_model_guider(model)} if TWO_MODELS else {}),
    }


def dual_model_guider(model, cfg=5.0):
    guider = core.Guider_DualModel(model, one_level(seed=1))
    guider.set_conds(POSITIVE, NEGATIVE)
    guider.set_cfg(cfg)
    return guider


TWO_MODELS = hasattr(core, "Guider_DualModel")  # hosts before 0.29 have none
ROWS = {"CFGGuider": 2, "BasicGuider": 1, "DualCFGGuider": 3, "nested DualCFGGuider": 3, "PerpNegGuider": 3}
if TWO_MODELS:
    ROWS["DualModelGuider"] = 2


@pytest.mark.parametrize("name", ROWS)
def test_an_empty_chain_changes_no_guider(model, name):
    assert torch.equal(guided_by(guiders(attach(model, "nothing", Step))[name]), guided_by(guiders(model)[name]))


@pytest.mark.parametrize("name", ROWS)
def test_pag_is_cores_pag_under_every_guider_in_one_call(model, name):
    counter = Counter(node(PAG, model))
    ours = guided_by(guiders(counter.model)[name])
    models = 2 if name == "DualModelGuider" else 1
    assert counter.calls == 6 * models and counter.rows == 6 * (ROWS[name] + 1)
    cores = guided_by(guiders(PerturbedAttentionGuidance.execute(model, 3.0).result[0])[name])
    close(ours, cores, 2e-4)


@pytest.fixture(scope="module")
def unguided(model):
    return {name: guided_by(guider) for name, guider in guiders(model).items()}


@pytest.mark.parametrize("name", ROWS)
@strategies
def test_every_strategy_runs_under_every_guider_and_acts_where_there_is_a_negative(model, name, strategy, unguided):
    cls, knobs = STRATEGIES[strategy]
    answer = guided_by(guiders(node(cls, model, **knobs))[name])
    assert answer.isfinite().all()
    if name != "BasicGuider":
        far(answer, unguided[name])


@pytest.mark.parametrize("nested", [False, True])
def test_outside_an_interval_the_dual_guider_is_its_first_prompt_alone(model, nested):
    guided = Counter(node(CFG, model, start=1.0, end=1.0))
    alone = guided_by(basic_guider(model))
    close(guided_by(dual_guider(guided.model, nested=nested)), alone, 1e-5)


def test_a_scale_without_a_negative_says_so_once(model, caplog):
    answer = guided_by(basic_guider(node(CFG, model, scale="5")))
    close(answer, guided_by(basic_guider(model)), 1e-6)
    assert sum("did not compute a negative" in r.message for r in caplog.records) == 1


def test_a_basic_guider_can_be_given_a_negative_and_a_scale(model):
    guided = node(Negative, node(CFG, model, scale="7"), negative=NEGATIVE)
    assert torch.equal(guided_by(basic_guider(guided)), guided_by(cfg_guider(model, 7.0)))


if TWO_MODELS:

    def test_a_second_model_keeps_its_own_negative_and_we_say_so(model, caplog):
        answer = guided_by(dual_model_guider(node(Negative, model, negative=prompt(7))))
        assert torch.equal(answer, guided_by(dual_model_guider(model)))
        assert sum("negative of its own" in r.message for r in caplog.records) == 1

    def test_a_second_model_is_not_loaded_at_cfg_1_and_we_say_so(model, caplog):
        guided_by(dual_model_guider(node(CFG, model, scale="5"), cfg=1.0))
        assert sum("did not compute a negative" in r.message for r in caplog.records) == 1


# ------------------------------------------------------------------------------------------------ conditionings

@kinds
def test_a_negative_out_of_its_range_is_no_guidance_and_not_guidance_from_black(kind):
    model = one_level(kind)
    guided = attach(model, "nothing", Step)
    late = sample(guided, negative=ranged(NEGATIVE, 0.5, 1.0), steps=12)
    close(late, sample(node(CFG, model, start=0.5, end=1.0), steps=12), 1e-5)


def test_an_extra_negative_out_of_its_range_is_not_there(model):
    late = ranged(prompt(7), 0.5, 1.0)
    windowed = node(Negative, model, negative=prompt(7), mode="weighted", start=0.5)
    counter = Counter(node(Negative, model, negative=late, mode="weighted"))
    close(sample(counter.model, steps=12), sample(windowed, steps=12), 1e-5)
    plain = node(Negative, model, negative=late, mode="plain")
    assert torch.equal(sample(plain, steps=12, last_step=4), sample(model, steps=12, last_step=4))


def test_a_missing_negative_does_not_break_samplers_that_read_it(model):
    guided = attach(model, "nothing", Step)
    close(guided_by(basic_guider(guided), sampler="euler_cfg_pp"), guided_by(basic_guider(model), sampler="euler"), 1e-5)


@pytest.mark.parametrize("strategy", [(CFG, {"end": 0.0}), (Budget, {"rows": 6})], ids=["interval", "budget"])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_what_is_unguided_is_so_for_samplers_that_read_the_negative(sampler, strategy, model):
    """0.16 off before, in 12 rows: at cfg 1 such a sampler renoises with the negative all the same."""
    counter = Counter(node(strategy[0], model, **strategy[1]))
    answer = sample(counter.model, sampler=f"{sampler}_cfg_pp", cfg=1.5)
    close(answer, guided_by(basic_guider(attach(model, "nothing", Step)), sampler=f"{sampler}_cfg_pp"), 1e-5)
    assert counter.rows == 6


def regional():
    left = [[prompt(11)[0][0], {"area": (16, 8, 0, 0), "strength": 1.0, "set_area_to_bounds": False}]]
    right = [[prompt(12)[0][0], {"area": (16, 8, 0, 8), "strength": 1.0, "set_area_to_bounds": False}]]
    return [*POSITIVE, *left, *right]


@pytest.mark.parametrize("batch", [1, 3])
def test_regional_prompts(model, batch):
    ours = sample(node(PAG, model), positive=regional(), batch=batch)
    close(ours, sample(PerturbedAttentionGuidance.execute(model, 3.0).result[0], positive=regional(), batch=batch), 2e-4)


def test_prompts_of_lengths_that_do_not_batch(model):
    long = prompt(4, tokens=31)
    ours = sample(node(PAG, model), negative=long)
    close(ours, sample(PerturbedAttentionGuidance.execute(model, 3.0).result[0], negative=long), 2e-4)


# ------------------------------------------------------------------------------------------------ ways to run

@strategies
def test_two_halves_of_a_run_are_the_run(model, strategy):
    """KSamplerAdvanced: steps 0 to 3 with leftover noise, then 3 to the end without adding any."""
    cls, knobs = STRATEGIES[strategy]
    guided = node(cls, model, **knobs)
    half = sample(guided, last_step=3)
    rest = sample(guided, noise=torch.zeros_like(half), image=half, start_step=3, disable_noise=True)
    close(rest, sample(guided), 1e-4)


@strategies
def test_image_to_image_and_inpainting(model, strategy):
    cls, knobs = STRATEGIES[strategy]
    guided, image = node(cls, model, **knobs), latent(seed=9)
    assert sample(guided, image=image, denoise=0.5).isfinite().all()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    painted = sample(guided, image=image, noise_mask=mask)
    assert torch.allclose(painted[..., :3], image[..., :3], atol=1e-4)
    assert painted.isfinite().all()


@kinds
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m_sde", "euler_cfg_pp", "dpm_2_ancestral"])
@pytest.mark.parametrize("chain", [("CFG", "Negative", "PerpCFG", "PAG"), ("PAG", "CFGPlusPlus", "Negative")], ids="+".join)
def test_samplers_and_model_types(chain, kind, sampler):
    model = guided = one_level(kind)
    for strategy in chain:
        cls, knobs = STRATEGIES[strategy]
        guided = node(cls, guided, **knobs)
    answer, plain = (sample(m, sampler=sampler, steps=3, size=8) for m in (guided, model))
    assert answer.isfinite().all()
    far(answer, plain)


@strategies
def test_an_interrupt_leaves_nothing_behind(model, strategy):
    cls, knobs = STRATEGIES[strategy]
    guided = node(cls, model, **knobs)
    first = sample(guided)

    def interrupt(step, *_):
        if step == 2:
            raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(guided, size=24, callback=interrupt)
    assert torch.equal(sample(guided), first)


def test_a_run_that_adds_noise(model):
    """Unsampling: sigmas that rise."""
    sigmas = torch.tensor([0.1, 1.0, 4.0, 10.0])
    for cls, knobs in STRATEGIES.values():
        assert sample(node(cls, model, **knobs), sigmas=sigmas, disable_noise=True, image=latent()).isfinite().all()


def test_while_a_model_trains_it_is_not_guided(model, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "in_training", True, raising=False)
    assert torch.equal(sample(node(PAG, model)), sample(model))


# ------------------------------------------------------------------------------------------------ other packs

def test_a_model_function_wrapper_sees_two_kinds_of_row(model):
    guided, seen = node(PAG, model), []

    def wrapper(apply, args):
        seen.append(tuple(args["cond_or_uncond"]))
        return apply(args["input"], args["timestep"], **args["c"])

    guided.set_model_unet_function_wrapper(wrapper)
    assert torch.equal(sample(guided), sample(node(PAG, model)))
    assert set(seen) == {(1, 0, 0)}


def test_an_attention_override_of_another_pack_is_kept(model):
    other, rows = model.clone(), []

    def override(attend, q, *args, **kwargs):
        options = kwargs["transformer_options"]
        rows.append((q.shape[0], len(options["cond_or_uncond"])))
        return attend(q, *args, **kwargs)

    other.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(sample(node(PAG, other)), sample(node(PAG, model)))
    assert all(count == entries for count, entries in rows)
    assert {count for count, _ in rows} == {2, 3}  # in the weakened layer only the host's own rows attend


def test_an_attention_override_that_displaces_ours_is_noticed(model, caplog):
    guided = node(PAG, model)
    guided.model_options["transformer_options"]["optimized_attention_override"] = lambda attend, *a, **k: attend(*a, **k)
    sample(guided)
    assert sum("had no effect" in r.message for r in caplog.records) == 1


def test_post_functions_that_were_thrown_away_are_noticed(model, caplog):
    guided = node(PerpCFG, model)
    guided.model_options["sampler_post_cfg_function"] = [lambda args: args["denoised"]]
    sample(guided)
    assert sum("has removed" in r.message for r in caplog.records) == 1


def test_the_chain_works_on_the_answer_of_a_foreign_cfg_function(model):
    def half(args):
        return args["input"] - (args["cond_denoised"] + args["uncond_denoised"]) / 2

    foreign = model.clone()
    foreign.set_model_sampler_cfg_function(half)
    far(sample(node(PAG, foreign)), sample(foreign))
    assert torch.equal(sample(node(PAG, foreign, scale=0.0)), sample(foreign))


def test_a_calc_cond_batch_function_of_another_pack_is_kept(model):
    foreign, called = model.clone(), []

    def calc(args):
        called.append(len(args["conds"]))
        return comfy.samplers.calc_cond_batch(args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])

    foreign.set_model_sampler_calc_cond_batch_function(calc)
    assert torch.equal(sample(node(PAG, foreign)), sample(node(PAG, model)))
    assert set(called) == {2}


def test_a_second_forward_gives_the_same_numbers_where_the_batch_cannot_take_ours(model):
    """Another pack hands the host a copy of x, so that its batch is not recognised as the evaluation's."""
    foreign = model.clone()
    foreign.set_model_sampler_calc_cond_batch_function(lambda args: comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"].clone(), args["sigma"], args["model_options"]))
    counter = Counter(node(PAG, foreign))
    close(sample(counter.model), sample(node(PAG, model)), 2e-5)
    assert counter.calls == 12


def test_context_windows_fuse_our_predictions_as_they_do_the_hosts(model):
    """Windows over the latent's width; a branch is fused from its windows before the chain sees it."""
    windowed = ContextWindowsManualNode.execute(model, 8, 4, "standard_static", 1, False, "pyramid", 3, False).result[0]
    ours = sample(node(PAG, windowed))
    close(ours, sample(PerturbedAttentionGuidance.execute(windowed, 3.0).result[0]), 2e-4)
    far(ours, sample(node(PAG, model)))


def test_a_step_cache_does_not_take_the_perturbed_prediction_for_the_prompts(model, caplog):
    """EasyCache remembers predictions by uuid. With one of its own, PAG still acts at cached steps."""
    def cached(model):
        return EasyCacheNode.execute(model, 3.0, 0.15, 0.95, False).result[0]

    guided = node(PAG, model)
    counter = Counter(node(PAG, cached(model)))
    ours, plain = sample(counter.model, steps=12), sample(cached(model), steps=12)
    far(ours, plain)

    def apart(a, b):
        return float((a - b).norm() / b.norm())

    # The cache is an approximation; it may cost PAG no more than it costs CFG.
    assert apart(ours, sample(guided, steps=12)) < 1.5 * apart(plain, sample(model, steps=12))
    assert not any("had no effect" in r.message for r in caplog.records)


# ------------------------------------------------------------------------------------------------ what it says


def test_a_cache_of_whole_evaluations_takes_no_effect_from_the_chain_and_nothing_is_said(model, caplog):
    """`makes its predictions past ComfyUI's own function, ... so the chain has no effect` before."""
    guided = node(NODES["GuidancePAG"], model)
    counter = Counter(LazyCacheNode.execute(guided, 100.0, 0.15, 0.95, False).result[0])
    answer = sample(counter.model, steps=12)
    assert counter.calls < 12 and not torch.equal(answer, sample(LazyCacheNode.execute(model, 100.0, 0.15, 0.95, False).result[0], steps=12))
    assert not [record for record in caplog.records if record.name == "comfyui-guidance" and record.levelname == "WARNING"]


def test_a_model_that_nobody_holds_is_gone_after_its_run(model):
    """The run held it until the next garbage collection. From then on the host called the base model a memory leak, collected
    garbage before each run, and kept a dead entry for each change of a knob."""
    sample(model, steps=1)
    loaded = comfy.model_management.current_loaded_models
    before, dead = len(loaded), sum(one.is_dead() for one in loaded)  # of other tests
    weak, negative = tiny_model(seed=9), prompt(7)
    gc.disable()
    try:
        guided = node(NODES["GuidanceNAG"], node(NODES["GuidancePAG"], node(NODES["GuidanceAutoguidance"], model, weak_model=weak)),
                      negative=negative)
        sample(guided, steps=2)
        alive = ref(guided)
        del guided
        assert alive() is None
    finally:
        gc.enable()
    gc.collect()
    loaded = comfy.model_management.current_loaded_models
    assert sum(one.is_dead() for one in loaded) <= dead and len(loaded) <= before + 1
