"""Networks that predict with and without the prompt in one row, on real ComfyUI: as CFG in two, for half the rows."""

import pytest
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.sampler_helpers import prepare_model_patcher
from comfy_extras.nodes_torch_compile import TorchCompileModel
from nodes import ConditioningSetArea
from pack.nodes import STRATEGIES
from pack.nodes.other_models import SinglePass
from pack.tests.host import (
    CORE_GUIDERS,
    POSITIVE,
    TYPES,
    TinyUNet,
    counted_by,
    guided_by,
    made,
    node,
    one_level,
    prompt,
    sample,
    short,
    two_in_one,
)
from pack.tests.measure import close, far
from pack.tests.test_rows import for_all, tiny_controlnet
from pack.tests.test_windows import in_windows


@pytest.fixture(scope="module")
def both():
    return node(SinglePass, two_in_one())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_cfg_in_two_passes_for_half_the_rows(kind, batch):
    answer, rows, calls = counted_by(sample, node(SinglePass, two_in_one(kind)), batch=batch)
    close(answer, sample(one_level(kind), batch=batch))
    assert (rows, calls) == (6, 6)


def test_at_cfg_1_it_is_the_prompt_alone(both):
    answer, rows, calls = counted_by(sample, both, cfg=1.0)
    close(answer, sample(one_level(), cfg=1.0))
    assert (rows, calls) == (6, 6)


def test_a_sampler_that_reads_the_negative_reads_the_other_half(both):
    how = dict(cfg=0.8, sampler="euler_cfg_pp")
    answer, rows, _ = counted_by(sample, both, **how)
    close(answer, sample(one_level(), **how))
    assert rows == 6


CHAINS = {
    "an interval": [("GuidanceCFG", {"start": 0.2, "end": 0.7})],
    "CFG++": [("GuidanceCFGPlusPlus", {})],
    "PAG and a threshold": [("GuidancePAG", {"layers": "middle"}), ("GuidanceDynamicThreshold", {"percentile": 0.8})],
    "APG and a weighted negative": [("GuidanceAPG", {}), ("GuidanceNegative", {"mode": "weighted", "weight": 2.0})],
    "perp-neg": [("GuidanceNegative", {"mode": "perp-neg"})],
    "sliding windows": [("GuidanceSWG", {})],
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("name", CHAINS)
def test_with_others_it_is_what_they_make_of_two_passes(name, first):
    plain, ours = one_level(), two_in_one()
    ours = node(SinglePass, ours) if first else ours
    for id, knobs in CHAINS[name]:
        plain, ours = made(id, plain, **knobs), made(id, ours, **knobs)
    ours = ours if first else node(SinglePass, ours)
    expected, rows, _ = counted_by(sample, plain)
    answer, fewer, _ = counted_by(sample, ours)
    close(answer, expected, 2e-5)
    guided = 3 if name == "an interval" else 6
    assert fewer == rows - guided


REGIONS = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0] + prompt(8)


@pytest.mark.parametrize("positive", [REGIONS, POSITIVE + prompt(9, tokens=11)], ids=["areas", "unequal prompts"])
def test_each_region_has_the_half_of_its_own_row(both, positive):
    answer, rows, _ = counted_by(sample, both, positive=positive)
    close(answer, sample(one_level(), positive=positive), 2e-5)
    assert rows <= 12


def test_where_memory_splits_the_batch_the_numbers_are_the_same(both, monkeypatch):
    expected = sample(both)
    monkeypatch.setattr(both.model, "memory_required", lambda *args, **kwargs: 1e30 if "cond_shapes" in kwargs else 1)
    answer, rows, calls = counted_by(sample, both)
    close(answer, expected)
    assert rows == calls == 12  # a copy alone in its forward has to be computed


def test_a_controlnet_acts_on_both_halves_alike(monkeypatch):
    both = node(SinglePass, two_in_one(family=TinyUNet))
    positive = for_all(tiny_controlnet())["positive"]
    expected = short(both, positive=positive)
    far(expected, short(both))
    monkeypatch.setattr(both.model, "memory_required", lambda *args, **kwargs: 1e30 if "cond_shapes" in kwargs else 1)
    close(short(both, positive=positive), expected)


def test_in_context_windows(both):
    wide = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(6))
    right = sample(in_windows(one_level()), noise=wide)
    close(sample(in_windows(both), noise=wide), right, 2e-5)
    far(sample(both, noise=wide), right)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_negative_that_is_asked_for_is_asked(first):
    plain, ours = (made("GuidanceNegative", model, mode="plain") for model in (one_level(), two_in_one()))
    ours = node(SinglePass, ours) if first else made("GuidanceNegative", node(SinglePass, two_in_one()), mode="plain")
    answer, rows, _ = counted_by(sample, ours)
    close(answer, sample(plain))
    assert rows == 12


def test_what_is_weakened_without_the_prompt_has_a_row_of_its_own():
    skipped = {"layers": "middle", "start": 0.0, "end": 1.0, "row": "the negative's"}
    plain, ours = made("GuidanceSLG", one_level(), **skipped), made("GuidanceSLG", node(SinglePass, two_in_one()), **skipped)
    answer, rows, calls = counted_by(sample, ours)
    close(answer, sample(plain))
    far(answer, sample(one_level()))
    assert (rows, calls) == (12, 6)


def test_compiled_is_as_without(both):
    compiled = TorchCompileModel.execute(both, "eager").result[0]
    for cfg in (5.0, 1.0):
        close(sample(compiled, cfg=cfg, steps=3, size=4), sample(both, cfg=cfg, steps=3, size=4))
    torch._dynamo.reset()


def test_it_runs_without_a_run_too(both):
    """As where another pack asks the model itself."""
    x, sigma = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 3.0])

    def ask(patcher):
        options = create_model_options_clone(patcher.model_options)
        prepare_model_patcher(patcher, {}, options)
        return patcher.model.apply_model(x, sigma, c_crossattn=POSITIVE[0][0].expand(2, -1, -1),
                                         transformer_options=options["transformer_options"])

    close(ask(both), ask(one_level()))


@pytest.mark.parametrize("guider", CORE_GUIDERS.values(), ids=CORE_GUIDERS)
def test_under_every_guider(both, guider):
    first, second = (guided_by(guider(both), steps=4, size=8) for _ in range(2))
    assert first.isfinite().all() and torch.equal(first, second)


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.node_id)
def test_every_strategy_runs_behind_it(cls, both):
    if cls.node_id in ("GuidanceDistilled", "GuidanceTSG", "GuidanceNAG", "GuidancePushAway", "GuidanceTextEncode"):
        return  # for other models; and the one here takes no further prompt in its row
    assert short(made(cls.node_id, both)).isfinite().all()


def test_it_is_a_weak_model_and_has_one(both):
    weak = made("GuidanceAutoguidance", one_level(seed=4), weak_model=both)
    close(sample(weak, cfg=2.0), sample(made("GuidanceAutoguidance", one_level(seed=4), weak_model=one_level()), cfg=2.0))
    assert short(made("GuidanceAutoguidance", both)).isfinite().all()


def test_twice_is_once(both):
    assert torch.equal(short(node(SinglePass, both)), short(both))


def test_a_model_without_a_second_half_is_refused():
    with pytest.raises(ValueError, match="GuidanceSinglePass: this model predicts 4 channels for latents of 4; it has to predict 8"):
        node(SinglePass, one_level())
    model = one_level()
    model.model.diffusion_model.out_channels = 3  # says nothing, as with those that cut latents into patches
    with pytest.raises(ValueError, match="predicts 4 channels for latents of 4"):
        short(node(SinglePass, model))
    assert "forward" not in vars(model.model.diffusion_model)


def test_nothing_is_left_behind(both):
    before = dict(vars(both.model.diffusion_model))
    sample(both)
    assert vars(both.model.diffusion_model) == before
