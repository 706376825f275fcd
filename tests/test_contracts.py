"""What every strategy on the menu promises. Listing a node subjects it to all of this, on real ComfyUI."""

import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from comfy_api.latest import io
from pack.guidance.core import UNCOND, Timeline, Weak, guide
from pack.guidance.schedule import parse
from pack.guidance.space import EPS, FLOW
from pack.nodes import STRATEGIES
from pack.nodes.bridge.hooks import CHAIN
from pack.nodes.bridge.noise_levels import percent_of
from pack.nodes.strategy import Strategy
from pack.tests.host import GIVEN, ON_FLUX, Counter, basic_guider, counted, guided_by, home, made, one_level, timely, tiny_flux
from pack.tests.host import short as sample
from pack.tests.measure import error
from torch.utils._python_dispatch import TorchDispatchMode

HELP = Path(__file__).parent.parent / "web" / "docs"
STEPS = 4  # of a short run

# What cannot be tried beside the strategies that are for Flux.
NOT_ON_FLUX = {
    "GuidanceAutoguidance": "has a UNet for its weak model here",
    "GuidancePLADIS": "has to have attention to the text alone",
}

# Knobs with which a strategy is plain CFG. None: it replaces the sampler's cfg, so it has none.
NEUTRAL = {
    "GuidanceCFG": {},
    "GuidanceStreamCFG": {"video": "", "audio": ""},
    "GuidanceDistilled": {"start": 0.0, "end": 0.0},
    "GuidanceNegative": {"start": 0.0, "end": 0.0},
    "GuidanceNAG": {"scale": 0.0},
    "GuidancePushAway": {"weight": 0.0},
    "GuidanceTextEncode": {"strength": 0.0},
    "GuidanceCFGPlusPlus": None,
    "GuidancePerpCFG": {"eta": 1.0},
    "GuidancePAG": {"scale": 0.0},
    "GuidanceSEG": {"sigma": 0.0},
    "GuidanceSLG": {"scale": 0.0},
    "GuidanceTPG": {"share": 0.0},
    "GuidanceRandomLayers": {"share": 0.0},
    "GuidanceERG": {"tau": 1.0},
    "GuidancePLADIS": {"scale": 0.0},
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
    "GuidanceSMC": {"gain": 0.0},
    "GuidanceFBG": {"pi": 1.0},
    "GuidanceRectCFGPlusPlus": {"ahead": 0.0},
    "GuidanceTSG": {"scale": 0.0},
    "GuidanceSWG": {"size": 1.0},
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
    "GuidanceStreamCFG": "replaces the sampler's cfg",
    "GuidanceDistilled": "changes what the network is told",
    "GuidancePAG": "adds a term of its own",
    "GuidanceSEG": "adds a term of its own",
    "GuidanceSLG": "adds a term of its own",
    "GuidanceTPG": "adds a term of its own",
    "GuidanceRandomLayers": "adds a term of its own",
    "GuidanceERG": "adds a term of its own",
    "GuidanceClassifier": "adds a term of its own",
    "GuidanceMomentum": "adds a term of its own",
    "GuidanceFBG": "adds a term of its own",
    "GuidanceTSG": "adds a term of its own",
    "GuidanceSWG": "adds a term of its own",
    "GuidanceCADS": "changes the prompt",
    "GuidanceNAG": "changes what the network attends to",
    "GuidancePushAway": "changes what the network attends to",
    "GuidancePLADIS": "changes what the network attends to",
    "GuidanceTextEncode": "changes what the network attends to",
}

# Strategies that may take less than their help page says, from data or from step to step, and why; the exact costs
# of theirs are counted in test_fewer_rows.py.
SAVES = {
    "GuidanceAdaptive": "stops when the predictions agree",
    "GuidanceAlternate": "leaves out every other step",
    "GuidanceCompress": "leaves out some steps",
    "GuidanceBudget": "leaves out what is over the cap",
}

# Strategies that take more than one forward a step, and how many.
CALLS = {"GuidanceRectCFGPlusPlus": 2, "GuidanceSWG": 2}

# Knobs with which a strategy acts in a short run, where its defaults do not.
ACTS = {
    "GuidanceCFG": {"scale": "3"},
    "GuidanceStreamCFG": {"video": "4"},
    "GuidanceDistilled": {"scale": 5.0},
    "GuidanceMimic": {"mimic_scale": 2.0},
    "GuidanceAdaptive": {"threshold": 2.0},
    "GuidanceBudget": {"rows": 6},
    "GuidanceSkimmedCFG": {"skim": 2.0},
    "GuidanceFBG": {"pi": 0.5},
    "GuidanceTSG": {"scale": 20.0, "spread": 1.0, "power": 0.0},
}

# Other ways to set a node, tried wherever every strategy is tried.
VARIANTS = {
    "GuidanceCFG": [{"scale": "0:9, 0.5:1, 1:4 smooth"}, {"start": 0.2, "end": 0.7},
                    {"start": 5.0, "end": 0.3, "unit": "sigma"}],
    "GuidanceStreamCFG": [{"video": "0:9, 0.5:1, 1:4", "audio": ""}, {"video": "", "start": 0.2, "end": 0.7}],
    "GuidanceDistilled": [{"scale": "0:6, 1:1"}, {"scale": 0.0, "start": 0.3, "end": 0.8}],
    "GuidanceNegative": [{"mode": "weighted"}, {"mode": "perp-neg"},
                         {"mode": "perp-neg", "weight": "0:1, 1:0", "start": 0.3}],
    "GuidanceNAG": [{"alpha": "0:0, 1:0.5", "tau": 1.5}, {"start": 0.3, "end": 0.8}],
    "GuidancePushAway": [{"weight": "0:2, 1:0"}, {"start": 0.3, "end": 0.8}],
    "GuidanceTextEncode": [{"text": "(cat:1.2) ((big dog:-0.5)), (bird:-2)"}, {"strength": "0:2, 1:0", "end": 0.8}],
    "GuidanceCFGPlusPlus": [{"strength": "0:0.2, 1:1"}],
    "GuidancePerpCFG": [{"reference": "cond"}, {"space": "noise"}, {"literal": True, "eta": 0.3}],
    "GuidancePAG": [{"layers": "input, output.1", "rescale": 0.7}, {"scale": "0:0, 0.5:3"}],
    "GuidanceSEG": [{"sigma": "0:0, 1:3", "rescale": 0.7}, {"layers": "all", "end": 0.6}],
    "GuidanceSLG": [{"what": "attention", "end": 1.0, "rescale": 0.7}, {"row": "the negative's", "layers": "middle, output.1"}],
    "GuidanceTPG": [{"share": "0:0.5, 1:1", "seed": 7}, {"layers": "middle", "start": 0.3}],
    "GuidanceRandomLayers": [{"share": "0:0.3, 1:1", "seed": 7}, {"layers": "all", "start": 0.3}],
    "GuidanceERG": [{"tau": "0:1, 1:0", "rescale": 0.7}, {"layers": "all", "tau": 3.0, "end": 0.6}],
    "GuidancePLADIS": [{"scale": "0:0, 1:2", "function": "sparsemax"}, {"start": 0.3, "end": 0.8}],
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
    "GuidanceSMC": [{"gain": "0:0.3, 1:0", "decay": 0.05}, {"start": 0.2, "end": 0.7}],
    "GuidanceFBG": [{"pi": 0.5, "t0": 0.0, "t1": 0.0}, {"largest": "0:20, 1:1", "pi": 0.9}, {"start": 0.3}],
    "GuidanceRectCFGPlusPlus": [{"ahead": "0:1, 0.5:0", "gamma": 1.0}, {"start": 0.3, "end": 0.8}],
    "GuidanceTSG": [{"spread": 0.5, "power": 0.0, "end": 0.6}, {"scale": "0:3, 0.5:0", "spread": "0:0.2, 1:0"}],
    "GuidanceSWG": [{"count": 3, "size": 0.5, "masked": False}, {"scale": "0:0, 0.5:1"}, {"start": 0.3, "end": 0.8}],
    "GuidanceAdaptive": [{"threshold": 0.5}, {"measure": "cosine", "threshold": 1.0}],
    "GuidanceAlternate": [{"every": 3, "start": 0.2}],
    "GuidanceCompress": [{"share": 0.4, "power": 2.0}, {"reuse": "0:1, 1:0"}],
    "GuidanceBudget": [{"rows": 9}, {"rows": 8, "spend": "even"}],
    "GuidanceAutoguidance": [{"share": 0.4}, {"share": "0:0, 0.5:1"}],
    "GuidanceClassifier": [{"where": "x", "scale": "0:2, 1:0"}],
    "GuidanceNull": [{"null": "mean"}, {"null": "independent", "end": 0.6}],
    "GuidanceCADS": [{"noise": "0:1, 1:0", "restore": 0.3, "start": 0.1}, {"start": 1.0, "full": 1.0}],
}

# What does nothing more when it stands on the wire twice.
ONCE = {"GuidanceCFG", "GuidanceStreamCFG", "GuidanceDistilled", "GuidanceNAG", "GuidancePLADIS", "GuidanceCFGPlusPlus",
        "GuidanceNegative", "GuidanceNull", "GuidanceAutoguidance", "GuidanceDynamicThreshold",
        "GuidanceRectCFGPlusPlus"}

# Of two of these, the one that is later on the wire counts.
LATER_WINS = [{"GuidanceCFG", "GuidanceStreamCFG", "GuidanceCFGPlusPlus"}, {"GuidanceNegative", "GuidanceNull"},
              {"GuidanceAutoguidance", "GuidanceRectCFGPlusPlus"}]

SETTINGS = [(cls, knobs) for cls in STRATEGIES for knobs in [{}, *VARIANTS.get(cls.node_id, [])]]
named = pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.node_id)
every = pytest.mark.parametrize("cls, knobs", SETTINGS, ids=lambda value: getattr(value, "node_id", None) or str(value))


UNET = one_level()


@pytest.fixture(scope="module")
def unet():
    return UNET


@pytest.fixture
def model(cls):
    """A model that the strategy works on."""
    return home(cls.node_id, UNET)


@cache
def plain(model):
    return sample(model)


def recipe(cls, model, knobs):
    return made(cls.node_id, model, **knobs).model_options[CHAIN][-1].recipe


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


# ------------------------------------------------------------------------------------------------ the tables above

def lacking(cls):
    """What these tests need to be told of a strategy, in one sentence; None where they know all."""
    needs = [given.id for given in cls.inputs if not given.optional and not given.id in GIVEN.get(cls.node_id, {})
             and not isinstance(given, io.Combo.Input)
             and getattr(getattr(given, "input_override", None) or given, "default", None) is None]
    if needs:
        return f"{cls.node_id} needs {', '.join(needs)}: put what the tests shall give it into GIVEN in tests/host.py."
    if cls.node_id not in NEUTRAL:
        return (f"{cls.node_id} has no neutral knobs: put those with which it is plain CFG into NEUTRAL in "
                f"tests/test_contracts.py, or None if it replaces the sampler's cfg.")
    return None


@named
def test_the_tables_know_every_strategy(cls):
    assert lacking(cls) is None, lacking(cls)


def test_the_tables_know_no_other():
    ids = {cls.node_id for cls in STRATEGIES}
    tables = (GIVEN, NOT_ON_FLUX, NEUTRAL, STEERS_AT_ONE, SAVES, CALLS, ACTS, VARIANTS)
    known = ON_FLUX.union(*tables)
    assert not (known | ONCE).union(*LATER_WINS) - ids
    assert all(id in STEERS_AT_ONE for id, knobs in NEUTRAL.items() if knobs is None)


def test_what_the_tables_lack_is_said_in_one_sentence():
    class New(Strategy):
        node_id = "GuidanceNew"
        inputs = [io.Conditioning.Input("other"), io.Float.Input("strength", default=1.0)]

    assert re.fullmatch(r"GuidanceNew needs other: [^.]+GIVEN in tests/host\.py\.", lacking(New))
    New.inputs = New.inputs[1:]
    assert re.fullmatch(r"GuidanceNew has no neutral knobs: .+ NEUTRAL in tests/test_contracts\.py, [^.]+\.",
                        lacking(New))


# ------------------------------------------------------------------------------------------------ neutral

def neutral(cls, model):
    return made(cls.node_id, model, **NEUTRAL[cls.node_id])


HAVE_NEUTRAL = [cls for cls in STRATEGIES if NEUTRAL.get(cls.node_id) is not None]


@pytest.mark.parametrize("cls", HAVE_NEUTRAL, ids=lambda cls: cls.node_id)
def test_neutral_knobs_are_plain_cfg_bit_for_bit_and_cost_nothing(cls, model):
    answer, rows, calls = counted(neutral(cls, model))
    assert torch.equal(answer, plain(model))
    assert (rows, calls) == (2 * STEPS, STEPS)


@pytest.mark.parametrize("order", [1, -1], ids=["menu", "reversed"])
def test_all_of_them_neutral_are_plain_cfg_bit_for_bit_and_cost_nothing(order, unet):
    weak = Counter(GIVEN["GuidanceAutoguidance"]["weak_model"])
    guided, chained = unet, [cls for cls in HAVE_NEUTRAL if cls.node_id not in ON_FLUX]
    for cls in chained[::order]:
        more = {"weak_model": weak.model} if cls.node_id == "GuidanceAutoguidance" else {}
        guided = made(cls.node_id, guided, **{**NEUTRAL[cls.node_id], **more})
    answer, rows, calls = counted(guided)
    assert len(guided.model_options[CHAIN]) == len(chained)
    assert torch.equal(answer, plain(unet))
    assert (rows, calls, weak.calls) == (2 * STEPS, STEPS, 0)


@every
def test_at_cfg_1_the_answer_is_the_prompts_own_and_uncond_is_not_computed(cls, knobs, model):
    if cls.node_id in STEERS_AT_ONE or {"mode", "literal", "scale", "form"} & knobs.keys():
        return
    answer, rows, calls = counted(made(cls.node_id, model, **knobs), cfg=1.0)
    assert torch.equal(answer, sample(model, cfg=1.0))
    assert (rows, calls) == (STEPS, STEPS)


@every
def test_a_guider_without_negative_gets_the_prompts_own_prediction_where_there_is_nothing_else(cls, knobs, model):
    guided, alone = (guided_by(basic_guider(m), steps=STEPS, size=8)
                     for m in (made(cls.node_id, model, **knobs), model))
    assert guided.isfinite().all()
    adds = STEERS_AT_ONE.get(cls.node_id) not in (None, "replaces the sampler's cfg")  # of which there is none
    if not adds and not {"mode", "form"} & knobs.keys():
        assert torch.equal(guided, alone)


# ------------------------------------------------------------------------------------------------ cost

@every
def test_planned_rows_and_calls_are_counted_ones(cls, knobs, model):
    counter, sigmas = Counter(made(cls.node_id, model, **knobs)), []
    counter.model.add_wrapper_with_key("predict_noise", "sigmas", lambda executor, x, sigma, *more: (
        sigmas.append(float(sigma[0])), executor(x, sigma, *more))[1])
    sample(counter.model)
    if cls.node_id == "GuidanceAdaptive":
        return  # what it plans depends on the predictions
    step = recipe(cls, model, knobs)()
    sampling = model.get_model_object("model_sampling")
    line = Timeline((*sigmas, 0.0), percent=percent_of(sampling),
                    sigma_at=lambda percent: float(sampling.percent_to_sigma(percent)))
    moments = [step.plan(moment) for moment in line.moments(7.0)]
    weak = sum(isinstance(need, Weak) for moment in moments for need in moment.needs)  # whose rows are not this model's
    assert (counter.rows, counter.calls) == (sum(moment.rows for moment in moments) - weak, sum(moment.calls for moment in moments))


@named
def test_the_help_page_states_the_cost_that_is_counted(cls, model):
    page = (HELP / f"{cls.node_id}.md").read_text()
    rows, calls, at_most = re.search(r"Cost: (\d+) rows?, (\d+) calls? per step( at most)?", page).groups()
    found = counted(made(cls.node_id, model))[1:]
    assert bool(at_most) == (cls.node_id in SAVES)
    assert found[0] <= STEPS * int(rows) if at_most else found[0] == STEPS * int(rows)
    assert found[1] == STEPS * int(calls)


@named
def test_the_help_page_says_whether_it_acts_at_cfg_1(cls):
    page = (HELP / f"{cls.node_id}.md").read_text()
    acts = cls.node_id in STEERS_AT_ONE
    assert ("Acts at cfg 1" in page, "Idle at cfg 1" in page) == (acts, not acts)


# ------------------------------------------------------------------------------------------------ tensors

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
AUDIO, IMAGE, ODD, VIDEO, POINT = (2, 4, 50), (2, 4, 8, 8), (4, 4, 9, 8), (4, 4, 3, 6, 7), (1, 4, 1, 1)
CASES = {
    "audio": {"shape": (4, 4, 50)}, "image": {"shape": ODD}, "video": {"shape": VIDEO},
    "flow": {"shape": ODD, "space": FLOW},
    "bfloat16": {"shape": ODD, "dtype": torch.bfloat16},
    "float16": {"shape": VIDEO, "space": FLOW, "dtype": torch.float16},
}


@every
def test_a_batch_is_its_samples_in_the_dtype_of_the_host(cls, knobs, model):
    make = recipe(cls, model, knobs)
    for name, case in CASES.items():
        moment, *tensors, branches = Case(**case).given(make())
        whole = guide(make(), moment, *tensors, branches)
        dtype, shape = case.get("dtype", torch.float32), case["shape"]
        assert (whole.dtype, whole.shape) == (dtype, shape), name
        rounding = max(2e-6, torch.finfo(dtype).eps)  # the maths is fp32; only the answer is rounded
        for i in range(shape[0]):
            one = [tensor[i:i + 1] for tensor in tensors]
            single = guide(make(), moment, *one, {key: value[i:i + 1] for key, value in branches.items()})
            torch.testing.assert_close(whole[i:i + 1], single, rtol=rounding, atol=1e-5,
                                       msg=lambda text: f"{name}: {text}")


@every
def test_zeros_constants_and_extremes_make_no_nan(cls, knobs, model):
    fills = [lambda shape, value=value: torch.full(shape, value) for value in (0.0, 1.0, 1e-20, 3e4)]
    fills += [lambda shape: 1e3 * torch.randn(shape), lambda shape: 1e-4 * torch.randn(shape)]
    make = recipe(cls, model, knobs)
    for shape, dtypes, sigmas in [(IMAGE, DTYPES, (14.6, 0.3)), (AUDIO, DTYPES[2:], (0.3,)),
                                  (VIDEO, DTYPES[2:], (14.6,)), (POINT, DTYPES[1:], (0.3,))]:
        for fill, dtype, sigma in product(fills, dtypes, sigmas):
            assert not Case(shape, dtype=dtype, fill=fill, sigma=sigma)(make()).isnan().any(), (shape, dtype, sigma)


class NoDeviceReads(TorchDispatchMode):
    """Fails where a value is read from the device, which on a GPU makes the sampler wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number is read from the device"
        assert func is not torch.ops.aten.nonzero.default, "a size is read from the device"
        return func(*args, **(kwargs or {}))


@every
def test_the_maths_reads_nothing_from_the_device_and_edits_no_tensor_of_the_samplers(cls, knobs, model):
    step = recipe(cls, model, knobs)()
    moment, *tensors, branches = Case().given(step)
    before = [tensor.clone() for tensor in (*tensors, *branches.values())]
    with NoDeviceReads():
        guide(step, moment, *tensors, branches)
    assert all(map(torch.equal, before, (*tensors, *branches.values())))


# ------------------------------------------------------------------------------------------------ runs

@every
def test_runs_do_not_remember(cls, knobs, model):
    guided = made(cls.node_id, model, **knobs)
    first = sample(guided)
    sample(guided, size=12, batch=2, steps=3)
    assert torch.equal(sample(guided), first)


@pytest.mark.parametrize("model", [UNET, timely(), tiny_flux()], ids=["UNet", "one that knows the time", "Flux"])
def test_the_model_that_came_in_is_not_changed(model):
    def seen():
        patches = [*model.patches, *model.object_patches]
        return repr((model.model_options, model.wrappers, model.callbacks, patches))

    before, answer = seen(), plain(model)
    for cls, knobs in SETTINGS:
        if home(cls.node_id, UNET) is model:
            made(cls.node_id, model, **knobs)
            assert seen() == before, (cls.node_id, knobs)
    assert torch.equal(sample(model), answer)


# ------------------------------------------------------------------------------------------------ pairs

def acting(cls, model):
    return made(cls.node_id, model, **ACTS.get(cls.node_id, {}))


@cache
def alone(cls, model):
    """(the answer, rows, calls) of a strategy without any other."""
    return counted(acting(cls, model))


@named
def test_a_strategy_acts(cls, model):
    """What the test of pairs stands on."""
    assert error(alone(cls, model)[0], plain(model)) > 1e-3


def lost(first, second):
    """Which of two strategies, in wire order, is to have no effect; None where both have one."""
    if first == second and first in ONCE or any({first, second} <= group for group in LATER_WINS):
        return first
    if "GuidanceAutoguidance" in (first, second) and {first, second} & LATER_WINS[1]:
        return first if second == "GuidanceAutoguidance" else second
    if second in ("GuidanceAutoguidance", "GuidanceFBG", "GuidanceRectCFGPlusPlus") and first in ("GuidanceCompress", "GuidanceBudget"):
        return first  # they count what the nodes before them ask for, and their pages say so
    if {first, second} == {"GuidanceFBG", "GuidanceCompress"}:
        return "GuidanceCompress"  # every picture's scale is found from the negative of every step
    if {first, second} == {"GuidanceCFGPlusPlus", "GuidanceSkimmedCFG"}:
        return "GuidanceSkimmedCFG"  # at scales as small as these there is nothing to skim
    return None


@named
def test_every_pair_chains_in_as_few_calls_as_each_and_neither_is_lost(cls):
    """Each pair in one order, now the menu's and now the other."""
    wrong, here = [], STRATEGIES.index(cls)
    for there, second in enumerate(STRATEGIES):
        if here != there and (here < there) == (here + there) % 2:
            continue
        pair, model = (cls.node_id, second.node_id), home(cls.node_id, home(second.node_id, UNET))
        if set(pair) & ON_FLUX and set(pair) & NOT_ON_FLUX.keys():
            continue
        answer, rows, calls = counted(acting(second, acting(cls, model)))
        if not answer.isfinite().all():
            wrong.append(f"{pair}: not finite")
        joined = any(one.joins for one in (cls, second)) and model is tiny_flux()  # whose rows have texts of one length
        if calls > STEPS * (2 if joined else 1) * (1 + sum(CALLS.get(id, 1) - 1 for id in set(pair))):
            wrong.append(f"{pair}: {calls} calls")
        if set(pair) <= SAVES.keys():  # one may leave out all that the other does
            if rows > min(alone(one, model)[1] for one in (cls, second)):
                wrong.append(f"{pair}: {rows} rows")
            continue
        loss = lost(*pair)
        silent = [one.node_id for one, other in ((cls, second), (second, cls))
                  if torch.equal(answer, (only := alone(other, model)[0])) or one.node_id == loss and error(answer, only) < 1e-6]
        if set(silent) != {loss} - {None}:  # what is undone may leave its rounding
            wrong.append(f"{pair}: without effect {silent}")
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------------------------------------ schedules

@named
def test_a_constant_schedule_is_the_plain_number(cls, model):
    knobs = {given.id: given.input_override.default for given in cls.inputs
             if isinstance(getattr(getattr(given, "input_override", None), "default", None), float)}
    if not knobs:
        return
    number = sample(made(cls.node_id, model, **knobs))
    assert torch.equal(sample(made(cls.node_id, model, **{id: str(value) for id, value in knobs.items()})), number)
    for id, value in knobs.items():
        assert torch.equal(sample(made(cls.node_id, model, **{id: parse(f"0:{value}, 1:{value}")})), number), id


@named
def test_numbers_out_of_range_are_refused_in_one_sentence_at_the_node(cls, model):
    for value in (float("nan"), float("inf"), "nan", "1e9", 1e9, "many", "0:nan", "0:1e9"):
        for given in cls.inputs:
            if isinstance(getattr(given, "input_override", None) or given, io.Float.Input) or given.id == "scale":
                with pytest.raises(ValueError) as error:
                    made(cls.node_id, model, **{given.id: value})
                assert "\n" not in str(error.value)
                assert re.search(r"between|has to be|have to be|belongs", str(error.value))
