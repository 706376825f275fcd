"""Who acts when: our links and other packs' functions in wire order, and whose scale counts."""

import logging
import re
from dataclasses import replace
from functools import partial

import comfy.model_management
import comfy.samplers
import comfy_extras.nodes_custom_sampler as core
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from pack import guidance
from pack.guidance.core import State, Timeline
from pack.nodes import STRATEGIES
from pack.tests.host import (
    NODES,
    Counter,
    cfg_guider,
    counted,
    guided_by,
    home,
    latent,
    made,
    node,
    one_level,
)
from pack.tests.host import short as sample
from pack.tests.measure import off


@pytest.fixture(scope="module")
def model():
    return one_level()


def post(model, function):
    """The model as another pack leaves it that has put a function into the post-cfg list."""
    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(function)
    return patched


# ------------------------------------------------------------------------------------------------ foreign functions


def same_deviation(args):
    """What a rescaling pack does: the answer with the standard deviation of cond."""
    return args["denoised"] * (args["cond_denoised"].std() / args["denoised"].std())


def darker(args):
    return args["denoised"] * 0.9


def squashed(args):
    return 3 * torch.tanh(args["denoised"] / 3)


def unchanged(args):
    return args["denoised"]


PERP = ("GuidancePerpCFG", guidance.perp_cfg, {"eta": 0.3})
APG = ("GuidanceAPG", guidance.apg, {"eta": 0.5, "threshold": 0.0, "momentum": -0.5})
FDG = ("GuidanceFDG", guidance.fdg, {"low": 0.4, "high": 1.2})
RESCALE = ("GuidanceRescale", guidance.rescale, {"strength": 0.7, "space": "output"})
MOMENTUM = ("GuidanceMomentum", guidance.momentum_guidance, {"alpha": 0.5, "beta": 0.6})
MIMIC = ("GuidanceMimic", guidance.mimic, {"mimic_scale": 3.0})

LINES = {  # of the effect of the whole line before
    "foreign first": (same_deviation, PERP, RESCALE),  # 0.00: right already
    "foreign last": (PERP, RESCALE, same_deviation),  # 0.00: right already
    "between": (PERP, darker, RESCALE),  # 0.16
    "between, by deviation": (PERP, same_deviation, MIMIC),  # 0.33
    "two foreign": (squashed, PERP, darker, RESCALE),  # 0.027
    "two stretches of ours": (PERP, darker, RESCALE, same_deviation, MIMIC),  # 0.13
    "the direction goes on": (PERP, squashed, APG),  # 0.083
    "two directions": (APG, darker, FDG),  # 0.034
    "two memories": (APG, squashed, MOMENTUM),  # 0.058
}


def wired(model, line):
    """The line as a user wires it, left to right: nodes of ours as tuples, other packs' functions as they are."""
    for part in line:
        model = node(NODES[part[0]], model, **part[2]) if isinstance(part, tuple) else post(model, part)
    return model


def by_hand(model, line):
    """The line in one post-cfg function, part by part: our maths alone, and one state that goes through all of it."""
    steps, last = [], [0.0]

    def act(args):
        sigma = float(args["sigma"][0])
        if sigma > last[0]:  # a new run: nothing is remembered
            steps[:] = [part[1](**part[2]) if isinstance(part, tuple) else part for part in line]
        last[0] = sigma
        line_of_sigmas = Timeline(tuple(args["model_options"]["transformer_options"]["sample_sigmas"].tolist()))
        state = State(line_of_sigmas.moment(sigma, args["cond_scale"]), args["input"], args["cond_denoised"],
                      args["uncond_denoised"], args["denoised"])
        for step in steps:
            if hasattr(step, "apply"):
                state = step.apply(state)
            else:
                state = replace(state, denoised=step({**args, "denoised": state.denoised}))
        return state.denoised

    return post(model, act)


@pytest.mark.parametrize("name", LINES)
def test_every_part_of_a_line_acts_at_its_own_place(name, model):
    line = LINES[name]
    assert off(sample(wired(model, line)), sample(by_hand(model, line)), sample(model)) < 1e-4


@pytest.mark.parametrize("sampler", ["euler_cfg_pp", "heun"])
def test_every_part_acts_at_its_own_place_in_samplers_that_hook_in_too(sampler, model):
    """euler_cfg_pp appends a function of its own; heun asks twice per step, which memories have to know."""
    line = (APG, darker, RESCALE)  # 0.33 of the effect in euler_cfg_pp, 0.74 in heun before
    how = dict(sampler=sampler, cfg=3.0)
    assert off(sample(wired(model, line), **how), sample(by_hand(model, line), **how), sample(model, **how)) < 1e-4


def test_what_stands_before_the_scale_node_and_what_after_differ(model):
    """CFG -> foreign -> Rescale was, bit for bit, Rescale -> foreign."""
    scaled = node(NODES["GuidanceCFG"], model, scale="5")
    answer = sample(node(NODES["GuidanceRescale"], post(scaled, darker)))  # 0.44 of the effect before, 0.67 in 6 steps
    right = sample(node(NODES["GuidanceRescale"], post(model, darker)), cfg=5.0)
    assert off(answer, right, sample(post(model, darker), cfg=5.0)) < 1e-5
    assert not torch.equal(answer, sample(post(node(NODES["GuidanceRescale"], scaled), darker)))


def test_a_foreign_function_is_given_what_stands_before_it_and_nothing_else(model):
    seen, wanted = [], []
    look = lambda into: lambda args: into.append(args["denoised"].clone()) or args["denoised"]
    sample(wired(model, (PERP, look(seen), RESCALE)), steps=1)  # it saw the answer after Rescale before
    sample(wired(model, (PERP, look(wanted))), steps=1)
    assert torch.equal(seen[0], wanted[0])


@pytest.mark.parametrize("name", ["between", "two directions", "two memories"])
def test_a_foreign_function_that_changes_nothing_is_as_if_it_were_not_there(name, model):
    line = [part for part in LINES[name] if isinstance(part, tuple)]
    between = [part for pair in line for part in (pair, unchanged)]
    assert torch.equal(sample(wired(model, between)), sample(wired(model, line)))  # passes before: it has to stay


def test_a_line_with_foreign_functions_costs_what_it_costs_without_and_remembers_nothing(model):
    guided = wired(node(NODES["GuidancePAG"], model), (PERP, darker, APG, squashed, MOMENTUM))
    counter = Counter(guided)
    first = sample(counter.model)
    assert (counter.rows, counter.calls) == (12, 4)
    sample(guided, size=16, steps=3)
    assert torch.equal(sample(guided), first)


def test_a_batch_is_its_pictures_with_foreign_functions_between(model):
    guided, noise = wired(model, (APG, darker, RESCALE)), latent(3, 8)
    whole = sample(guided, noise=noise)
    for i in range(3):
        assert float((whole[i:i + 1] - sample(guided, noise=noise[i:i + 1])).abs().max()) < 1e-3


# ------------------------------------------------------------------------------------------------ a cfg function of others


def half_way(args):
    return args["input"] - (args["cond_denoised"] + 2 * args["uncond_denoised"]) / 3


def swapping(model):
    """A pack that brings its own cfg function for some evaluations only, in the options of that call."""

    def predict_noise(executor, x, timestep, model_options, seed=None):
        if float(timestep[0]) < 5:
            model_options = {**model_options, "sampler_cfg_function": half_way}
        return executor(x, timestep, model_options, seed)

    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "swapping", predict_noise)
    return patched


class SwappingGuider(comfy.samplers.CFGGuider):
    """A guider that does the same, and asks the host for the rest."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        return super().predict_noise(x, timestep, {**model_options, "sampler_cfg_function": half_way}, seed)


@pytest.mark.parametrize("line", [(PERP, RESCALE), (APG, darker, MIMIC)], ids=["ours", "foreign between"])
def test_a_pack_that_swaps_the_cfg_function_is_followed_by_our_nodes(line, model):
    right = sample(by_hand(swapping(model), line))  # 0.00 for ours alone, 0.032 with a foreign function between before
    assert off(sample(wired(swapping(model), line)), right, sample(swapping(model))) < 1e-4
    assert off(sample(swapping(wired(model, line))), right, sample(swapping(model))) < 1e-4


def test_a_guider_that_swaps_the_cfg_function_is_followed_by_our_nodes(model):
    def run(model):
        guider = SwappingGuider(model)
        plain = cfg_guider(model)
        guider.original_conds, guider.cfg = plain.original_conds, plain.cfg
        return guided_by(guider)

    line = (PERP, darker, RESCALE)  # 1.10 of the effect before
    assert off(run(wired(model, line)), run(by_hand(model, line)), run(model)) < 1e-4


# ------------------------------------------------------------------------------------------------ another's scale

if hasattr(core, "CFGOverride"):  # hosts before 0.29 have none

    def override(model, cfg, start=0.0, end=1.0):
        return core.CFGOverride.execute(model, cfg, start, end).result[0]

    OVERRIDDEN = {  # override after ours, of our effect, before
        "APG": ("GuidanceAPG", {}),  # 2.01
        "Perp-CFG": ("GuidancePerpCFG", {}),  # 2.01
        "FDG": ("GuidanceFDG", {}),  # 1.99
        "Mimic": ("GuidanceMimic", {"mimic_scale": 2.0}),  # 0.30
        "PAG": ("GuidancePAG", {}),  # 0.00
        "Rescale": ("GuidanceRescale", {}),  # 0.00
        "perp-neg": ("GuidanceNegative", {"mode": "perp-neg"}),  # 1.34
        "weighted": ("GuidanceNegative", {"mode": "weighted"}),  # 0.00
        "Autoguidance": ("GuidanceAutoguidance", {}),  # 2.09
        "half Autoguidance": ("GuidanceAutoguidance", {"share": 0.5}),  # 1.93
    }
    overridden = pytest.mark.parametrize("id, knobs", OVERRIDDEN.values(), ids=OVERRIDDEN)

    @overridden
    def test_a_scale_that_another_node_sets_is_the_scale(id, knobs, model):
        """CFGOverride(3) at the sampler's 7, nearer to the sampler than ours or farther: ours at 3."""
        right, without = sample(made(id, model, **knobs), cfg=3.0), sample(model, cfg=3.0)
        assert off(sample(override(made(id, model, **knobs), 3.0)), right, without) < 1e-4
        assert off(sample(made(id, override(model, 3.0), **knobs)), right, without) < 1e-4

    @overridden
    def test_a_scale_of_1_in_part_of_the_run_is_1_there(id, knobs, model):
        """The wire order cannot matter, because nobody but CFGOverride sets a scale."""
        after = sample(override(made(id, model, **knobs), 1.0, 0.5, 1.0))  # of the picture: APG 0.0007, perp-neg 0.002, Autoguidance 0.067, half of it 0.053 before
        right = sample(made(id, override(model, 1.0, 0.5, 1.0), **knobs))
        assert float((after - right).norm() / right.norm()) < 1e-5

    def test_of_two_scales_the_one_nearer_to_the_sampler_counts(model):
        scaled = node(NODES["GuidanceCFG"], model, scale="5")
        assert torch.equal(sample(override(scaled, 3.0)), sample(model, cfg=3.0))  # right before
        assert torch.equal(sample(node(NODES["GuidanceCFG"], override(model, 3.0), scale="5")), sample(model, cfg=5.0))

    def test_what_stops_guidance_stops_it_at_another_nodes_scale_too(model):
        adaptive = lambda m: node(NODES["GuidanceAdaptive"], m, threshold=0.5)
        after, right = sample(override(adaptive(model), 3.0)), sample(adaptive(override(model, 3.0)))
        assert float((after - right).norm() / right.norm()) < 1e-5

    @pytest.mark.parametrize("id, knobs", [("GuidanceAPG", {}), ("GuidanceAutoguidance", {})], ids=["APG", "Autoguidance"])
    def test_another_scale_counts_with_a_foreign_function_between(id, knobs, model):
        line = lambda m: node(NODES["GuidanceRescale"], post(made(id, m, **knobs), darker))
        right, without = sample(line(model), cfg=3.0), sample(model, cfg=3.0)
        assert off(sample(override(line(model), 3.0)), right, without) < 1e-4  # 0.78 and 0.80 of our effect before


# ------------------------------------------------------------------------------------------------ scales first


def both_orders(model, one, other, **how):
    """(answer, rows) with `one` first on the wire, and with `other` first."""
    first = made(other[0], made(one[0], model, **one[1]), **other[1])
    second = made(one[0], made(other[0], model, **other[1]), **one[1])
    return counted(first, **how)[:2], counted(second, **how)[:2]


CFG, CFGPP, STREAM_CFG = "GuidanceCFG", "GuidanceCFGPlusPlus", "GuidanceStreamCFG"
LOSSES = {
    # Interval, then CFG++: 40 rows instead of 30, and 0.27 of the effect off before.
    "interval and CFG++": ((CFG, {"start": 0.2, "end": 0.7}), (CFGPP, {}), {"steps": 20}, 30),
    # beta-CFG, then a scale: no curve, 0.021 of the effect before.
    "beta-CFG and a scale": (("GuidanceBetaCFG", {}), (CFG, {"scale": "7.5"}), {}, 8),
    "flat pushes and a scale": (("GuidanceBetaCFG", {"gamma": 0.0}), (CFG, {"scale": "7.5"}), {}, 8),  # not the same before
    "beta-CFG and CFG++": (("GuidanceBetaCFG", {"gamma": 0.0}), (CFGPP, {}), {}, 8),  # no curve at all before
    # The sampler's cfg 1, Autoguidance, then 2.5: 8 rows instead of 4, the weak model never asked before.
    "Autoguidance and a scale": (("GuidanceAutoguidance", {}), (CFG, {"scale": "2.5"}), {"cfg": 1.0}, 4),
    "Autoguidance and CFG++": (("GuidanceAutoguidance", {}), (CFGPP, {}), {"cfg": 1.0}, 4),  # 8 rows before
    "budget and a scale": (("GuidanceBudget", {"rows": 6}), (CFG, {"scale": "5"}), {"cfg": 1.0}, 6),  # 8 rows before
    "budget and interval": (("GuidanceBudget", {"rows": 9}), (CFG, {"start": 0.2, "end": 0.7}), {"steps": 6}, 9),  # 8 rows before
}


@pytest.mark.parametrize("name", LOSSES)
def test_no_strategy_is_lost_to_a_scale_that_is_set_after_it(name, model):
    one, other, how, rows = LOSSES[name]
    (first, first_rows), (second, second_rows) = both_orders(model, one, other, **how)
    assert (first_rows, second_rows) == (rows, rows)
    assert torch.equal(first, second)


def test_a_scale_after_autoguidance_asks_the_weak_model(model):
    weak = Counter(one_level(seed=9))
    guided = node(NODES["GuidanceAutoguidance"], model, weak_model=weak.model)
    answer = sample(node(NODES[CFG], guided, scale="2.5"), cfg=1.0)
    assert weak.calls == 4  # 0 before
    assert torch.equal(answer, sample(guided, cfg=2.5))


def test_the_curve_of_beta_cfg_is_on_the_scale_that_is_set(model):
    guided = node(NODES["GuidanceBetaCFG"], model, gamma=0.0)
    right = sample(guided, cfg=7.5)
    assert torch.equal(sample(node(NODES[CFG], guided, scale="7.5"), cfg=3.0), right)  # the curve was lost before


@pytest.mark.parametrize("id", [cls.node_id for cls in STRATEGIES if cls.node_id not in (CFG, CFGPP, STREAM_CFG)])
def test_wherever_the_scale_is_set_the_answer_is_the_same(id, model):
    setter, more = (CFG, {"scale": "5", "end": 0.7}), {"mode": "weighted"} if id == "GuidanceNegative" else {}
    (first, rows), (second, others) = both_orders(home(id, model), (id, more), setter, cfg=1.0)
    assert rows == others  # beta-CFG lost its curve, Autoguidance took 7 rows instead of 4 before
    assert torch.equal(first, second)


TITLES = {CFG: "CFG", CFGPP: "CFG++"}


@pytest.mark.parametrize("order", [(CFG, CFGPP), (CFGPP, CFG)], ids=["CFG++ last", "CFG last"])
def test_of_two_nodes_that_set_the_scale_the_later_wins_and_we_say_so_once(order, model, caplog):
    caplog.set_level(logging.INFO, "comfyui-guidance")
    knobs = {CFG: {"scale": "5"}, CFGPP: {}}
    chained = model
    for id in order:
        chained = node(NODES[id], chained, **knobs[id])
    assert torch.equal(sample(chained), sample(node(NODES[order[1]], model, **knobs[order[1]])))
    said = [r.message for r in caplog.records if re.search(r"\bwins\b", r.message)]
    assert len(said) == 1 and all(title in said[0] for title in TITLES.values())  # nothing was said before
    caplog.clear()
    sample(node(NODES[CFGPP], node(NODES[CFG], model, end=0.7)))  # an interval sets no scale
    assert not [r for r in caplog.records if re.search(r"\bwins\b", r.message)]


# ------------------------------------------------------------------------------------------------ CFG++ between grid points


def scales(model, sampler, sigmas):
    """[(sigma, scale in force)] of every evaluation of a run on these sigmas."""
    seen = []
    looking = post(model, lambda args: seen.append((float(args["sigma"][0]), args["cond_scale"])) or args["denoised"])
    noise = latent(1, 4)
    cfg_guider(looking).sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object(sampler), sigmas,
                               disable_pbar=True, seed=3)
    return seen


# Before, the mean scale of the evaluations between grid points, where the mean over euler's is 2.14 (eps, normal, 15 steps)
# or 2.13 (flow, normal, 20 steps). Each against the sampler of its kind that evaluates a step once.
BETWEEN = {
    ("eps", "dpm_2"): "euler",  # 4.17
    ("eps", "dpmpp_sde"): "euler_ancestral",  # 4.17
    ("flow", "dpmpp_2s_ancestral"): "euler_ancestral",  # 46.41
}


@pytest.mark.parametrize("kind, sampler", BETWEEN)
def test_between_grid_points_cfgpp_has_the_gain_of_the_step(kind, sampler):
    guided = node(NODES[CFGPP], one_level(kind))
    sigmas = comfy.samplers.calculate_sigmas(guided.get_model_object("model_sampling"), "normal", 10)
    gains = [scale for _, scale in scales(guided, BETWEEN[kind, sampler], sigmas)]
    grid = sigmas.tolist()
    for sigma, scale in scales(guided, sampler, sigmas):
        # Where it meets the grid, an evaluation is the start of a step or the end of the one before.
        allowed = [gain for gain, start, end in zip(gains, grid, grid[1:]) if end <= sigma * 1.001 and sigma <= start * 1.001]
        assert min(abs(scale - gain) / gain for gain in allowed) < 2e-3


# ------------------------------------------------------------------------------------------------ an end in the middle


@pytest.mark.parametrize("where", ["the model", "a foreign function"])
def test_an_interrupt_in_the_middle_of_an_evaluation_leaves_nothing_behind(where, model):
    armed = []

    def stop_late(sigma):
        if armed and float(sigma) < 3:
            raise comfy.model_management.InterruptProcessingException()

    def foreign(args):
        if where != "the model":
            stop_late(args["sigma"][0])
        return args["denoised"]

    def forward(executor, x, t, *args, **kwargs):
        if where == "the model":
            stop_late(t[0])
        return executor(x, t, *args, **kwargs)

    line = (partial(foreign), APG, foreign, MOMENTUM)
    guided = wired(node(NODES["GuidancePAG"], node(NODES[CFG], model, scale="0:9, 1:2")), line)
    guided.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "stop", forward)
    guider = cfg_guider(guided)
    first, before = guided_by(guider), dict(cfg=guider.cfg)
    armed.append(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        guided_by(guider)
    assert guider.cfg == before["cfg"] and set(vars(guider)) >= {"cfg"}
    armed.clear()
    assert torch.equal(guided_by(guider), first)
