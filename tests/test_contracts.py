"""What every strategy on the menu promises. Listing a node subjects it to all of this, on real ComfyUI."""

import re
from itertools import product
from pathlib import Path

import pytest
import torch
from pack.guidance.core import UNCOND, Timeline, Weak, guide
from pack.guidance.schedule import parse
from pack.guidance.space import EPS, FLOW
from pack.nodes import STRATEGIES
from pack.nodes.bridge.hooks import CHAIN
from pack.tests.host import (
    Counter,
    basic_guider,
    guided_by,
    node,
    prompt,
    sample,
    tiny_model,
)
from torch.utils._python_dispatch import TorchDispatchMode

MENU = STRATEGIES
HELP = Path(__file__).parent.parent / "web" / "docs"

# What a node needs besides its defaults.
GIVEN = {
    "GuidanceNegative": {"negative": prompt(7)},
    "GuidanceAutoguidance": {"weak_model": tiny_model("eps", seed=9)},
    "GuidanceClassifier": {"classifier": lambda latents, sigma: -latents.flatten(1).cos().sum(1)},
}

# Knobs with which a strategy is plain CFG. None: it replaces the sampler's cfg, so it has none.
NEUTRAL = {
    "GuidanceCFG": {},
    "GuidanceNegative": {"start": 0.0, "end": 0.0},
    "GuidanceCFGPlusPlus": None,
    "GuidancePerpCFG": {"eta": 1.0},
    "GuidancePAG": {"scale": 0.0},
    "GuidanceDynamicThreshold": {"strength": 0.0},
    "GuidanceMimic": {"strength": 0.0},
    "GuidanceAPG": {"eta": 1.0, "threshold": 0.0, "momentum": 0.0},
    "GuidanceCFGZeroStar": {"strength": 0.0, "zero_steps": 0},
    "GuidanceRescale": {"strength": 0.0},
    "GuidanceRenorm": {"strength": 0.0},
    "GuidanceTCFG": {"strength": 0.0},
    "GuidanceFDG": {"low": 1.0, "high": 1.0},
    "GuidanceFreSca": {"low": 1.0, "high": 1.0},
    "GuidanceMamboG": {"alpha": 0.0},
    "GuidancePowerLaw": {"alpha": 0.0},
    "GuidanceBetaCFG": {"a": 1.0, "b": 1.0, "gamma": 0.0},
    "GuidanceAutoRange": {"strength": 0.0},
    "GuidanceSkimmedCFG": {"skim": 7.0},
    "GuidanceMomentum": {"alpha": 0.0},
    "GuidanceAdaptive": {"threshold": 0.0},
    "GuidanceAlternate": {"every": 1},
    "GuidanceCompress": {"share": 1.0},
    "GuidanceBudget": {"rows": 0},
    "GuidanceAutoguidance": {"share": 0.0},
    "GuidanceClassifier": {"scale": 0.0},
    "GuidanceNull": {"start": 0.0, "end": 0.0},
    "GuidanceCADS": {"noise": 0.0},
}

# Strategies whose answer at the sampler's cfg 1 is not the prompt's own prediction, and why.
STEERS_AT_ONE = {
    "GuidanceCFGPlusPlus": "replaces the sampler's cfg",
    "GuidancePAG": "adds a term of its own",
    "GuidanceClassifier": "adds a term of its own",
    "GuidanceMomentum": "adds a term of its own",
    "GuidanceCADS": "changes the prompt",
}

# Strategies that may take less than their help page says, from data or from step to step, and why; the exact costs
# of theirs are counted in test_weak_and_null.py.
SAVES = {
    "GuidanceAdaptive": "stops when the predictions agree",
    "GuidanceAlternate": "leaves out every other step",
    "GuidanceCompress": "leaves out some steps",
    "GuidanceBudget": "leaves out what is over the cap",
}

# Other ways to set a node, tried wherever every strategy is tried.
VARIANTS = {
    "GuidanceCFG": [{"scale": "0:9, 0.5:1, 1:4 smooth"}, {"start": 0.2, "end": 0.7}, {"start": 5.0, "end": 0.3, "unit": "sigma"}],
    "GuidanceNegative": [{"mode": "weighted"}, {"mode": "perp-neg"}, {"mode": "perp-neg", "weight": "0:1, 1:0", "start": 0.3}],
    "GuidanceCFGPlusPlus": [{"strength": "0:0.2, 1:1"}],
    "GuidancePerpCFG": [{"reference": "cond"}, {"space": "noise"}, {"literal": True, "eta": 0.3}],
    "GuidancePAG": [{"layers": "input, output.3", "rescale": 0.7}, {"scale": "0:0, 0.5:3"}],
    "GuidanceDynamicThreshold": [{"form": "pixels"}, {"percentile": 1.0, "strength": "0:1, 1:0"}],
    "GuidanceMimic": [{"mimic_scale": 3.0, "percentile": 0.99}, {"mimic_scale": 3.0, "measure": "std"},
                      {"mimic_scale": "0:3, 1:9", "per_channel": False, "start": "zero"}],
    "GuidanceAPG": [{"unit": "norm", "threshold": 2.0, "eta": 0.5},
                    {"eta": 1.0, "threshold": "0:0, 1:0.1", "momentum": "0:-0.7, 1:0"}],
    "GuidanceCFGZeroStar": [{"zero_steps": 2, "strength": "0:1, 1:0"}],
    "GuidanceRescale": [{"strength": "0:1, 1:0", "space": "x0"}],
    "GuidanceRenorm": [{"over": "pixels", "limit": 1.1, "space": "x0"}, {"over": "sample", "limit": 1.0}],
    "GuidanceTCFG": [{"strength": "0:0, 1:1"}],
    "GuidanceFDG": [{"low": "0:0, 1:2", "high": 0.0}],
    "GuidanceFreSca": [{"low": 0.5, "high": "0:1, 1:2", "cutoff": 1.0}],
    "GuidanceMamboG": [{"alpha": "0:8, 1:0"}],
    "GuidancePowerLaw": [{"alpha": "0:0.9, 1:0", "reference": 1.0}],
    "GuidanceBetaCFG": [{"a": 1.0, "b": 1.0}, {"gamma": 0.0}, {"a": 1.5, "b": 1.0, "gamma": "0:1, 1:0"}],
    "GuidanceAutoRange": [{"reference": 1.0, "strength": "0:1, 1:0"}],
    "GuidanceSkimmedCFG": [{"skim": 3.0}, {"skim": "0:3, 1:9", "full_negative": True, "flips": False}],
    "GuidanceMomentum": [{"alpha": -1.0, "beta": 0.0}, {"alpha": "0:0, 1:2"}],
    "GuidanceAdaptive": [{"threshold": 0.5}, {"measure": "cosine", "threshold": 1.0}],
    "GuidanceAlternate": [{"every": 3, "start": 0.2}],
    "GuidanceCompress": [{"share": 0.4, "power": 2.0}, {"reuse": "0:1, 1:0"}],
    "GuidanceBudget": [{"rows": 9}, {"rows": 8, "spend": "even"}],
    "GuidanceAutoguidance": [{"share": 0.4}, {"share": "0:0, 0.5:1"}],
    "GuidanceClassifier": [{"where": "x", "scale": "0:2, 1:0"}],
    "GuidanceNull": [{"null": "mean"}, {"null": "independent", "end": 0.6}],
    "GuidanceCADS": [{"noise": "0:1, 1:0", "restore": 0.3, "start": 0.1}, {"start": 1.0, "full": 1.0}],
}

SETTINGS = [(cls, knobs) for cls in MENU for knobs in [{}, *VARIANTS.get(cls.node_id, [])]]
named = pytest.mark.parametrize("cls", MENU, ids=lambda cls: cls.node_id)
every = pytest.mark.parametrize("cls, knobs", SETTINGS, ids=lambda value: getattr(value, "node_id", None) or str(value))


@pytest.fixture(scope="module")
def model():
    return tiny_model("eps")


@pytest.fixture(scope="module")
def plain(model):
    return sample(model)


def patched(cls, model, knobs):
    return node(cls, model, **{**GIVEN.get(cls.node_id, {}), **knobs})


def recipe(cls, model, knobs):
    return patched(cls, model, knobs).model_options[CHAIN][-1].recipe


class Case:
    """Random predictions for one evaluation of a step, away from the host."""

    def __init__(self, shape=(2, 4, 8, 8), space=EPS, scale=7.0, dtype=torch.float32, fill=torch.randn, sigma=None):
        sigmas = (1.0, 0.8, 0.5, 0.2, 0.0) if space is FLOW else (14.6, 5.0, 1.5, 0.3, 0.0)
        self.moment = Timeline(sigmas, space=space, percent=lambda s: 1 - s / sigmas[0],
                               sigma_at=lambda p: (1 - p) * sigmas[0]).moment(sigma or sigmas[2], scale)
        self.make = lambda: fill(shape).to(dtype)
        self.x, self.cond, self.uncond = self.make(), self.make(), self.make()

    def given(self, step):
        moment = step.plan(self.moment)
        branches = {branch: self.make() for branch in sorted(moment.asked - {UNCOND}, key=repr)}
        denoised = self.uncond + (self.cond - self.uncond) * moment.scale
        return moment, self.x, self.cond, self.uncond, denoised, branches

    def __call__(self, step):
        return guide(step, *self.given(step))


# ------------------------------------------------------------------------------------------------ neutral

@named
def test_neutral_knobs_are_plain_cfg_bit_for_bit_and_cost_nothing(cls, model, plain):
    knobs = NEUTRAL[cls.node_id]
    if knobs is None:
        assert cls.node_id in STEERS_AT_ONE
        return
    counter = Counter(patched(cls, model, knobs))
    assert torch.equal(sample(counter.model), plain)
    assert (counter.rows, counter.calls) == (12, 6)


@every
def test_at_cfg_1_the_answer_is_the_prompts_own_and_uncond_is_not_computed(cls, knobs, model):
    if cls.node_id in STEERS_AT_ONE or {"mode", "literal", "scale", "form"} & knobs.keys():
        return
    counter = Counter(patched(cls, model, knobs))
    assert torch.equal(sample(counter.model, cfg=1.0), sample(model, cfg=1.0))
    assert (counter.rows, counter.calls) == (6, 6)


@every
def test_a_guider_without_negative_gets_the_prompts_own_prediction_where_there_is_nothing_else(cls, knobs, model):
    answer = guided_by(basic_guider(patched(cls, model, knobs)))
    assert answer.isfinite().all()
    adds = ("GuidancePAG", "GuidanceClassifier", "GuidanceCADS", "GuidanceMomentum")
    if cls.node_id not in adds and not {"mode", "form"} & knobs.keys():
        assert torch.equal(answer, guided_by(basic_guider(model)))


# ------------------------------------------------------------------------------------------------ cost

@every
def test_planned_rows_are_counted_rows_in_one_call_per_step(cls, knobs, model):
    counter = Counter(patched(cls, model, knobs))
    sigmas = []
    counter.model.add_wrapper_with_key("predict_noise", "sigmas", lambda executor, x, t, *a: (sigmas.append(float(t[0])), executor(x, t, *a))[1])
    sample(counter.model)
    if cls.node_id == "GuidanceAdaptive":
        return  # what it plans depends on the predictions
    step = recipe(cls, model, knobs)()
    from pack.nodes.bridge.noise_levels import percent_of
    sampling = model.get_model_object("model_sampling")
    line = Timeline((*sigmas, 0.0), percent=percent_of(sampling), sigma_at=lambda p: float(sampling.percent_to_sigma(p)))
    own = [sum(not isinstance(need, Weak) for need in step.plan(moment).needs) for moment in line.moments(7.0)]
    assert counter.rows == sum(1 + rows for rows in own)  # a weak model's rows are not this model's
    assert counter.calls == 6


@named
def test_the_help_page_states_the_cost_that_is_counted(cls, model):
    page = (HELP / f"{cls.node_id}.md").read_text()
    rows, calls, at_most = re.search(r"Cost: (\d+) rows?, (\d+) calls? per step( at most)?", page).groups()
    rows, calls = int(rows), int(calls)
    counter = Counter(patched(cls, model, {}))
    sample(counter.model)
    assert bool(at_most) == (cls.node_id in SAVES)
    assert counter.rows <= 6 * rows if at_most else counter.rows == 6 * rows
    assert counter.calls == 6 * calls


@named
def test_the_help_page_says_whether_it_acts_at_cfg_1(cls):
    page = (HELP / f"{cls.node_id}.md").read_text()
    assert ("Acts at cfg 1" in page, "Idle at cfg 1" in page) == (cls.node_id in STEERS_AT_ONE, cls.node_id not in STEERS_AT_ONE)


# ------------------------------------------------------------------------------------------------ tensors

@every
@pytest.mark.parametrize("shape", [(4, 4, 50), (4, 4, 9, 8), (4, 4, 3, 6, 7)], ids=["audio", "image", "video"])
@pytest.mark.parametrize("space", [EPS, FLOW], ids=["eps", "flow"])
def test_a_batch_is_its_samples(cls, knobs, shape, space, model):
    make = recipe(cls, model, knobs)
    for dtype in DTYPES:
        moment, *tensors, branches = Case(shape, space, dtype=dtype).given(make())
        whole = guide(make(), moment, *tensors, branches)
        for i in range(shape[0]):
            one = [tensor[i:i + 1] for tensor in tensors]
            single = guide(make(), moment, *one, {key: value[i:i + 1] for key, value in branches.items()})
            rounding = max(2e-6, torch.finfo(dtype).eps)  # the maths is fp32; only the answer is rounded
            torch.testing.assert_close(whole[i:i + 1], single, rtol=rounding, atol=1e-5)


DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_of_the_answer_is_that_of_the_hosts(cls, knobs, dtype, model):
    answer = Case(dtype=dtype)(recipe(cls, model, knobs)())
    assert answer.dtype == dtype and answer.shape == (2, 4, 8, 8)


@every
@pytest.mark.parametrize("shape", [(2, 4, 50), (2, 4, 8, 8), (1, 4, 1, 1), (2, 4, 3, 6, 7)], ids=str)
def test_zeros_constants_and_extremes_make_no_nan(cls, knobs, shape, model):
    fills = [lambda shape, value=value: torch.full(shape, value) for value in (0.0, 1.0, 1e-20, 3e4)]
    fills += [lambda shape: 1e3 * torch.randn(shape), lambda shape: 1e-4 * torch.randn(shape)]
    make = recipe(cls, model, knobs)
    for fill, dtype, sigma in product(fills, DTYPES, (14.6, 0.3)):
        assert not Case(shape, dtype=dtype, fill=fill, sigma=sigma)(make()).isnan().any()


@every
def test_the_samplers_tensors_are_not_edited(cls, knobs, model):
    step = recipe(cls, model, knobs)()
    moment, *tensors, branches = Case().given(step)
    before = [tensor.clone() for tensor in (*tensors, *branches.values())]
    guide(step, moment, *tensors, branches)
    assert all(map(torch.equal, before, (*tensors, *branches.values())))


class NoDeviceReads(TorchDispatchMode):
    """Fails where a value is read from the device, which on a GPU makes the sampler wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number is read from the device"
        assert func is not torch.ops.aten.nonzero.default, "a size is read from the device"
        return func(*args, **(kwargs or {}))


@every
def test_the_maths_reads_nothing_from_the_device(cls, knobs, model):
    step = recipe(cls, model, knobs)()
    moment, *tensors, branches = Case().given(step)
    with NoDeviceReads():
        guide(step, moment, *tensors, branches)


# ------------------------------------------------------------------------------------------------ runs

@every
def test_runs_do_not_remember(cls, knobs, model):
    guided = patched(cls, model, knobs)
    first = sample(guided)
    sample(guided, size=24, steps=3)
    sample(guided, batch=2, steps=3)
    assert torch.equal(sample(guided), first)


@every
def test_the_model_that_came_in_is_not_changed(cls, knobs, model, plain):
    patched(cls, model, knobs)
    assert torch.equal(sample(model), plain)


@pytest.mark.parametrize("pair", list(product(MENU, MENU)), ids=lambda pair: "+".join(cls.node_id[8:] for cls in pair))
def test_every_pair_chains(pair, model, plain):
    guided = model
    for cls in pair:
        guided = patched(cls, guided, {})
    counter = Counter(guided)
    assert sample(counter.model).isfinite().all()
    assert counter.calls == 6
    if all(NEUTRAL[cls.node_id] is not None for cls in pair):
        neutral = model
        for cls in pair:
            neutral = patched(cls, neutral, NEUTRAL[cls.node_id])
        assert torch.equal(sample(neutral), plain)


# ------------------------------------------------------------------------------------------------ schedules

@named
def test_a_constant_schedule_is_the_plain_number(cls, model):
    for given in cls.inputs:
        widget = getattr(given, "input_override", None)
        default = getattr(widget, "default", None)
        if isinstance(default, float):
            number = sample(patched(cls, model, {given.id: default}))
            assert torch.equal(sample(patched(cls, model, {given.id: str(default)})), number)
            assert torch.equal(sample(patched(cls, model, {given.id: parse(f"0:{default}, 1:{default}")})), number)


@named
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "1e9", 1e9, "many", "0:nan", "0:1e9"], ids=str)
def test_numbers_out_of_range_are_refused_in_one_sentence_at_the_node(cls, value, model):
    from comfy_api.latest import io

    for given in cls.inputs:
        widget = getattr(given, "input_override", None) or given
        if isinstance(widget, io.Float.Input) or given.id == "scale":
            with pytest.raises(ValueError) as error:
                patched(cls, model, {given.id: value})
            assert "\n" not in str(error.value)
            assert re.search(r"between|has to be|have to be|belongs", str(error.value))
