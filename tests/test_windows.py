"""Context windows: the host predicts in windows over the latent, and what we add has to be predicted in them too."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from pack.tests.host import (
    EMPTY,
    NEGATIVE,
    NODES,
    Counter,
    basic_guider,
    guided_by,
    node,
    one_level,
    prompt,
    ranged,
    sample,
)
from pack.tests.measure import off

WINDOWS = 3  # over a width of 16


@pytest.fixture(scope="module")
def model():
    return one_level()


def in_windows(model, fuse="pyramid"):
    """Windows of 8, 4 of which overlap. The host puts the place before each window in front of it, so the model sees 9."""
    return ContextWindowsManualNode.execute(model, 8, 4, "standard_static", 1, False, fuse, 3, False).result[0]


def seen_shapes(model):
    """(the model, the shapes of the latents that it will be given)"""
    shapes, looking = set(), model.clone()
    looking.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "see", lambda executor, x, *args, **kwargs: (
        shapes.add(tuple(x.shape[1:])), executor(x, *args, **kwargs))[1])
    return looking, shapes


# ------------------------------------------------------------------------------------------------ nothing from zeros


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_negative_out_of_its_range_is_no_guidance(ours_first, model):
    """Up to 23888 where 287 is right (12 steps of a larger model: 212538 and 345) before: guidance from zeros."""
    scale = lambda m, **knobs: node(NODES["GuidanceCFG"], m, **knobs)
    guided = in_windows(scale(model)) if ours_first else scale(in_windows(model))
    answer = sample(guided, negative=ranged(NEGATIVE, 0.5, 1.0))
    right = sample(scale(in_windows(model), start=0.5))
    assert float((answer - right).abs().max() / right.abs().max()) < 1e-5


def test_an_extra_negative_out_of_its_range_is_not_there(model):
    weighted = lambda negative, **window: node(NODES["GuidanceNegative"], in_windows(model), negative=negative,
                                               mode="weighted", **window)
    counter = Counter(weighted(ranged(prompt(7), 0.5, 1.0)))
    answer, right = sample(counter.model), sample(weighted(prompt(7), start=0.5))
    assert off(answer, right, sample(in_windows(model))) < 1e-4
    assert counter.calls == 6 * WINDOWS  # 27 before


def test_a_guider_without_negative_does_not_break_samplers_that_read_it(model):
    answer = guided_by(basic_guider(node(NODES["GuidanceCFG"], in_windows(model))), "euler_cfg_pp")
    right = guided_by(basic_guider(in_windows(model)), "euler")  # 3.6 of it off before
    assert float((answer - right).norm() / right.norm()) < 1e-5


# ------------------------------------------------------------------------------------------------ weak models


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_weak_model_predicts_in_the_same_windows(share, model):
    main, mains = seen_shapes(model)
    weak, weaks = seen_shapes(one_level(seed=9))
    sample(node(NODES["GuidanceAutoguidance"], in_windows(main), weak_model=weak, share=share), cfg=2.1)
    assert weaks == mains  # {(4, 16, 16)} instead of {(4, 16, 8), (4, 16, 9)} before


def test_the_models_own_twin_as_weak_model_is_no_guidance(model):
    twin = one_level()
    answer = sample(node(NODES["GuidanceAutoguidance"], in_windows(model), weak_model=twin), cfg=5.0)
    alone = sample(in_windows(model), cfg=1.0)  # 0.35 of the effect of cfg 5 off before
    assert off(answer, alone, sample(in_windows(model), cfg=5.0)) < 1e-4


# ------------------------------------------------------------------------------------------------ cost

ROWS = {  # node, knobs: rows of one window at cfg 7, and at cfg 1
    "PAG": ("GuidancePAG", {}, 3, 2),
    "weighted": ("GuidanceNegative", {"negative": prompt(7), "mode": "weighted"}, 3, 3),
    "perp-neg": ("GuidanceNegative", {"negative": prompt(7), "mode": "perp-neg"}, 3, 3),
    "plain": ("GuidanceNegative", {"negative": prompt(7)}, 2, 1),
}


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("name", ROWS)
def test_an_added_row_is_one_more_row_in_each_window_and_no_call(name, cfg, model):
    id, knobs, guided, alone = ROWS[name]
    counter = Counter(node(NODES[id], in_windows(model), **knobs))
    sample(counter.model, cfg=cfg, steps=1)
    rows = guided if cfg == 7 else alone
    assert (counter.calls, counter.rows) == (WINDOWS, WINDOWS * rows)  # 6 calls of PAG and the two negatives before


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("fuse", ["pyramid", "relative", "overlap-linear"])
def test_what_we_add_is_fused_from_windows_as_the_hosts_own(fuse, ours_first, model):
    pag = lambda m: node(NODES["GuidancePAG"], m)
    answer = sample(in_windows(pag(model), fuse) if ours_first else pag(in_windows(model, fuse)))
    right = sample(PerturbedAttentionGuidance.execute(in_windows(model, fuse), 3.0).result[0])
    assert off(answer, right, sample(in_windows(model, fuse))) < 1e-3  # passes before: it has to stay


def test_a_weighted_negative_in_windows_is_the_plain_negative_of_the_same_weight(model):
    """weight = cfg - 1 cancels the sampler's own negative."""
    guided = node(NODES["GuidanceNegative"], in_windows(model), negative=prompt(7), mode="weighted", weight=6.0)
    right = sample(in_windows(model), negative=prompt(7))
    assert off(sample(guided, negative=EMPTY), right, sample(in_windows(model), negative=EMPTY)) < 1e-4  # passes before


def test_a_latent_no_wider_than_a_window_has_none(model):
    guided = node(NODES["GuidancePAG"], model)
    assert torch.equal(sample(in_windows(guided), size=8), sample(guided, size=8))  # passes before
