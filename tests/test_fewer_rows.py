"""What strategies that leave rows out save on real ComfyUI, and what they leave as it is."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from nodes import ConditioningSetTimestepRange
from pack.guidance.core import Step, Timeline
from pack.nodes.bridge.planning import Chain
from pack.nodes.fewer_rows import Adaptive, Alternate, Budget, Compress
from pack.nodes.other_models import Autoguidance
from pack.nodes.prompts import Negative
from pack.nodes.scale import CFG
from pack.tests.host import (
    CORE_GUIDERS,
    NEGATIVE,
    Counter,
    counted_by,
    guided_by,
    latent,
    node,
    one_level,
    prompt,
    sample,
)
from pack.tests.measure import close

guiders = pytest.mark.parametrize("guider", CORE_GUIDERS.values(), ids=CORE_GUIDERS)
counted = partial(counted_by, sample)


SAVING = {
    "adaptive": (Adaptive, {"threshold": 0.5}),
    "alternate": (Alternate, {}),
    "compress": (Compress, {"share": 0.5}),
    "budget": (Budget, {"rows": 9}),
}
saving = pytest.mark.parametrize("name", SAVING)


@pytest.fixture(scope="module")
def model():
    return one_level()


@pytest.fixture(scope="module")
def weak():
    return one_level(seed=9)


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
        assert guided_by(guider(node(cls, model, **knobs)), sampler, steps=4, size=8).isfinite().all()


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


def test_packed_streams_leave_the_negative_out_only_together():
    for streams, skips in [((0, 1), True), ((0,), False), ((1,), False)]:
        some = Chain([lambda: Step(lambda moment: replace(moment, skip=moment.stream in streams))], 2)  # noqa: B023
        assert all(moment.skips is skips for moment in some.plan(Timeline((2.0, 1.0, 0.0)), 2.0, [7.0, 7.0]))


def test_a_negative_that_is_out_of_its_range_does_not_stop_adaptive_guidance(model):
    late = ConditioningSetTimestepRange().set_range(NEGATIVE, 0.5, 1.0)[0]
    assert torch.equal(
        sample(node(Adaptive, model, threshold=0.001), negative=late),
        sample(node(Adaptive, model, threshold=0.0), negative=late),
    )
