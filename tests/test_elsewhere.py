"""Predictions from elsewhere on real ComfyUI: at another time, further along, through windows. By hand and as we ask."""

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from nodes import ConditioningSetArea
from pack.guidance.core import Ahead, Cropped, Mistimed, Step
from pack.nodes.bridge.hooks import attach
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import (
    CORE_GUIDERS,
    EMPTY,
    NEGATIVE,
    POSITIVE,
    TYPES,
    Counter,
    counted_by,
    guided_by,
    made,
    one_level,
    prompt,
    ranged,
    sample,
    timely,
)
from pack.tests.measure import close, error, far, off

CROPS = Cropped(0.625, 2)
WINDOWS = {  # length, overlap, dimension, and the batch: the host cannot take several samples in windows over a side
    "whole": (None, None, None, 4), "over the width": (8, 4, 3, 1), "over the batch": (2, 1, 0, 4),
}
kinds = pytest.mark.parametrize("kind", TYPES)
windows = pytest.mark.parametrize("window", WINDOWS)


def in_windows(model, window):
    """(the model in these context windows, and with which batch to sample)"""
    length, overlap, dim, batch = WINDOWS[window]
    if length is not None:
        model = ContextWindowsManualNode.execute(
            model, length, overlap, "standard_static", 1, False, "pyramid", dim, False).result[0]
    return model, {"batch": batch}


def asked(model, branch, run=sample, **how):
    """(the moment, its prediction of the branch) at the second evaluation, of a chain that does nothing with it."""
    states = []

    def recipe():
        return Step(lambda moment: moment.ask(*branch(moment)), lambda state: states.append(state) or state)

    run(attach(model, "asking", recipe), steps=3, **{"cfg": 1.0, **how})
    moment = states[1].moment
    return moment, [states[1].branches.get(one) for one in branch(moment)]


def by_hand(model, look, run=sample, **how):
    """What `look` makes of what the host tells a post-cfg function at the second evaluation, during it."""
    looked, model = [], model.clone()

    def function(args):
        looked.append(look(args))
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(function)
    run(model, steps=3, **{"cfg": 1.0, **how})
    return looked[1]


def predicted(args, cond="cond", x=None, sigma=None, forward=None):
    """One more prediction of the host's; forward: a wrapper of the network's."""
    options = args["model_options"]
    if forward is not None:
        own = options["transformer_options"]
        wrappers = {**own.get("wrappers", {}), WrappersMP.APPLY_MODEL: {"by hand": [forward]}}
        options = {**options, "transformer_options": {**own, "wrappers": wrappers}}
    x, timestep = args["input"] if x is None else x, args["sigma"]
    timestep = timestep if sigma is None else torch.full_like(timestep, sigma)
    return comfy.samplers.calc_cond_batch(args["model"], [args[cond]], x, timestep, options)[0]


def told(sigma):
    """The forward of a network that is told another time of the same input."""
    def forward(executor, x, t, concat=None, context=None, control=None, options={}, **more):
        model = executor.class_obj
        sampling = model.model_sampling
        time = sampling.timestep(torch.full_like(t, sigma)).float()
        out = model.diffusion_model(sampling.calculate_input(t, x), time, context=context, transformer_options=options, **more)
        return sampling.calculate_denoised(t, out.float(), x)

    return forward


def windowed(executor, x, *args, **more):
    """A forward in crops, and their mean."""
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for y, height in CROPS.windows(x.shape[-2]):
        for z, width in CROPS.windows(x.shape[-1]):
            part = ..., slice(y, y + height), slice(z, z + width)
            total[part] += executor(x[part], *args, **more)
            count[part] += 1
    return total / count


# ------------------------------------------------------------------------------------------------ another time

@windows
@kinds
def test_a_row_that_is_told_another_time_is_the_networks_own_answer_to_that_time(kind, window):
    model, how = in_windows(timely(kind), window)
    moment, (ours,) = asked(model, lambda moment: [Mistimed(moment.sigma, moment.sigma * 0.4)], **how)
    right, cond = by_hand(model, lambda args: (predicted(args, forward=told(moment.sigma * 0.4)), args["cond_denoised"]), **how)
    close(ours, right, 1e-6)
    assert error(ours - cond, right - cond) < 1e-3  # of the effect, which is small beside x


def test_a_row_that_is_told_its_own_time_is_the_prompts():
    moment, (ours,) = asked(timely("flow"), lambda moment: [Mistimed(moment.sigma, moment.sigma)])
    close(ours, by_hand(timely("flow"), lambda args: args["cond_denoised"]), 1e-6)


@pytest.mark.parametrize("name", ["ltxav", "wan"])
def test_no_row_is_told_the_time_of_another(name, monkeypatch):
    """LTX-2 takes the latest time of all rows for what passes between picture and sound: 0.017 of the effect off before."""
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    guided, given = made("GuidanceTSG", model, scale=5.0, spread=1.0, power=0.0), {"cfg": 3.0, "steps": 3}
    together, plain = architecture.sample(guided, **given), architecture.sample(model, **given)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30 if "cond_shapes" in kwargs else 1)
    assert off(architecture.sample(guided, **given), together, plain) < 1e-4


# ------------------------------------------------------------------------------------------------ ahead

def ahead(moment):
    return [Ahead(moment.sigma * 0.7, True), Ahead(moment.sigma * 0.7, False)]


def looked_ahead(args, cond):
    sigma, x = float(args["sigma"][0]), args["input"]
    there = x + (0.7 * sigma - sigma) * (x - args["cond_denoised"]) / sigma
    return predicted(args, cond, there, 0.7 * sigma)


@windows
@kinds
def test_ahead_is_where_an_euler_step_along_the_prompt_leads_to(kind, window):
    model, how = in_windows(timely(kind), window)
    _, ours = asked(model, ahead, cfg=3.0, **how)
    right = by_hand(model, lambda args: [looked_ahead(args, cond) for cond in ("cond", "uncond")], cfg=3.0, **how)
    close(ours[0], right[0], 1e-6)
    assert error(ours[0] - ours[1], right[0] - right[1]) < 1e-4


@pytest.mark.parametrize("guider", CORE_GUIDERS)
def test_rectified_cfgpp_under_every_guider(guider):
    """Under a guider without a negative there is nothing to guide by; the others guide from their own."""
    model = one_level("flow")
    counter = Counter(made("GuidanceRectCFGPlusPlus", model))
    answer = guided_by(CORE_GUIDERS[guider](counter.model))
    plain = guided_by(CORE_GUIDERS[guider](model))
    assert answer.isfinite().all()
    if guider == "basic":
        assert torch.equal(answer, plain) and counter.calls == 6
    else:
        far(answer, plain)


def test_a_negative_out_of_its_range_ahead_is_no_guidance():
    model = one_level("flow")
    ours = sample(made("GuidanceRectCFGPlusPlus", model), negative=ranged(NEGATIVE, 0.0, 0.01))
    assert error(ours, sample(model, cfg=1.0)) < 1e-6


def test_a_plain_negative_is_the_one_ahead():
    model, other = one_level("flow"), prompt(7)
    ours = made("GuidanceRectCFGPlusPlus", made("GuidanceNegative", model, negative=other))
    close(sample(ours, negative=EMPTY), sample(made("GuidanceRectCFGPlusPlus", model), negative=other))


def test_in_many_steps_looking_ahead_comes_to_plain_cfg():
    """By Euler's method the difference is of the size of a step."""
    model = one_level("flow")
    off = [error(sample(made("GuidanceRectCFGPlusPlus", model), steps=steps, size=4, cfg=2.0),
                 sample(model, steps=steps, size=4, cfg=2.0)) for steps in (8, 32)]
    assert off[1] < 0.35 * off[0]


# ------------------------------------------------------------------------------------------------ windows

@windows
@pytest.mark.parametrize("size", [16, 13])
def test_a_cropped_prediction_is_the_mean_of_its_windows(size, window):
    model, how = in_windows(one_level("flow"), window)
    _, (ours,) = asked(model, lambda moment: [CROPS], size=size, **how)
    right, cond = by_hand(model, lambda args: (predicted(args, forward=windowed), args["cond_denoised"]), size=size, **how)
    close(ours, right, 1e-6)
    assert error(ours - cond, right - cond) < 1e-4


def test_video_is_cropped_in_space_and_whole_in_time():
    wan = ARCHITECTURES["wan"]
    _, (ours,) = asked(wan.model(), lambda moment: [CROPS], wan.sample)
    close(ours, by_hand(wan.model(), lambda args: predicted(args, forward=windowed), wan.sample), 1e-6)


def test_a_mask_for_all_frames_of_a_video_is_seen_through_the_windows():
    """`start (0) + length (2) exceeds dimension size (1)` before."""
    wan = ARCHITECTURES["wan"]
    guided, left = made("GuidanceSWG", wan.model()), torch.zeros(1, 10, 8)
    left[..., :4] = 1
    halves = [*wan.prompt(1, mask=left, mask_strength=1.0), *wan.prompt(1, mask=1 - left, mask_strength=1.0)]
    close(wan.sample(guided, positive=halves), wan.sample(guided))


def test_a_window_as_large_as_the_picture_is_off_and_free():
    model = one_level()
    answer, rows, calls = counted_by(sample, made("GuidanceSWG", model, size=0.95), size=8)
    assert torch.equal(answer, sample(model, size=8)) and (rows, calls) == (12, 6)


def test_areas_of_the_prompt_are_seen_through_the_windows():
    """Away from the area the prediction is that without it; the area is seen in each window that meets it."""
    (part,) = ConditioningSetArea().append(EMPTY, 32, 32, 0, 0, 1.0)  # the first 4 of 16 rows and columns
    model = one_level()
    _, (regional,) = asked(model, lambda moment: [CROPS], positive=[*POSITIVE, *part])
    states = [by_hand(model, lambda args: args["input"], positive=cond) for cond in (POSITIVE, [*POSITIVE, *part])]
    assert not torch.equal(*states)  # so the second evaluation cannot be compared; the first can
    once = dict(steps=1, cfg=1.0)
    without, within = (sample(made("GuidanceSWG", model, masked=False, scale=1.0), positive=cond, **once)
                       - 2 * sample(model, positive=cond, **once) for cond in (POSITIVE, [*POSITIVE, *part]))
    assert error(within[..., 6:], without[..., 6:]) < 1e-5
    far(within[..., :4, :4], without[..., :4, :4])
    rows = counted_by(sample, made("GuidanceSWG", model), positive=[*POSITIVE, *part], **once)[1]
    assert rows == 2 + 4 + 1  # two entries, and the windows of each: the area meets one of them


def test_an_area_of_the_whole_picture_is_none():
    """Its windows faded at their borders before: 0.16 of the effect off."""
    (whole,) = ConditioningSetArea().append(POSITIVE, 128, 128, 0, 0, 1.0)
    guided = made("GuidanceSWG", one_level())
    close(sample(guided, positive=whole), sample(guided))


def test_latents_without_height_and_width_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="count is 2 and size is 0.4; their product has to be at least 1"):
        made("GuidanceSWG", one_level(), size=0.4)
    ltx = ARCHITECTURES["ltxav"]
    with pytest.raises(ValueError, match=r"needs a latent with height and width; .* several streams in one\.$"):
        ltx.sample(made("GuidanceSWG", ltx.model()))


# ------------------------------------------------------------------------------------------------ all of them

@pytest.mark.parametrize("sampler", ["heun", "dpm_2"])
@pytest.mark.parametrize("id, rows, calls", [("GuidanceTSG", 3, 1), ("GuidanceRectCFGPlusPlus", 3, 2), ("GuidanceSWG", 6, 2),
                                             ("GuidanceFBG", 2, 1), ("GuidanceSMC", 2, 1)])
def test_rows_and_calls_of_samplers_that_evaluate_a_step_twice(id, rows, calls, sampler):
    evaluations = 2 * 4 - 1
    answer, *cost = counted_by(sample, made(id, one_level()), sampler=sampler, batch=4, steps=4, size=8)
    assert answer.isfinite().all() and cost == [evaluations * rows, evaluations * calls]


@pytest.mark.parametrize("id", ["GuidanceTSG", "GuidanceRectCFGPlusPlus", "GuidanceSWG"])
def test_a_step_cache_that_never_skips_changes_nothing(id):
    nodes = pytest.importorskip("comfy_extras.nodes_easycache")
    guided = made(id, one_level("flow"))
    cached = nodes.EasyCacheNode.execute(guided, 0.0, 0.0, 1.0, False).result[0]
    close(sample(cached), sample(guided), 1e-6)
