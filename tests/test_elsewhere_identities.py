"""Feedback, a look ahead, a wrong time and windows against their papers, written out again in float64."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from pack.guidance import chain, compress, fbg, rect_cfgpp, swg, tsg
from pack.guidance.core import Ahead, Cropped, Mistimed, State, Timeline
from pack.guidance.interval import Window
from pack.guidance.space import EPS, FLOW, V

SPACES = {"eps": EPS, "v": V, "flow": FLOW}
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
shapes = pytest.mark.parametrize("shape", [(3, 4, 50), (3, 4, 9, 8), (3, 4, 3, 6, 7)], ids=["3-D", "4-D", "5-D"])
CLOSED = Window(0.0, 0.0)


def line(space, steps=8, first=0.98):
    """A run down from `first` of all noise."""
    levels = [first * (1 - i / steps) for i in range(steps + 1)]
    return Timeline(tuple(levels if space is FLOW else [level / (1 - level) for level in levels]), space=space)


def tensors(n, shape=(3, 4, 9, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(n)]


def same(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def state(step, moment, x, c, u, branches=()):
    moment = step.plan(moment)
    u = u if moment.needs and not moment.skips else c
    return State(moment, x, c, u, u + moment.combined * (c - u), dict(branches))


# ------------------------------------------------------------------------------------------------ feedback

def path(step, run, w=1.0, shape=(3, 4, 9, 8), apart=0.3):
    """(moment, x, c, u, answer) along an Euler path of a model that knows what it wants."""
    goal, start, other = tensors(3, shape)
    x = run.space.alpha(run.sigmas[0]) * goal + run.sigmas[0] * start
    for moment in run.moments(w):
        c = goal + 0.05 * x
        u = c - apart * (1 + moment.step / 4) * other
        given = state(step, moment, x, c, u)
        answer = step.apply(given).denoised
        yield moment, x, c, u, answer
        x = x + (x - answer) / moment.sigma * (moment.sigma_next - moment.sigma)


def koulischer(steps, space, pi, t0, t1, largest, w):
    """The scales of the authors' code for every step, in variance-exploding coordinates."""
    t = [moment.sigma / space.alpha(moment.sigma) for moment, *_ in steps] + [0.0]
    n = len(steps)
    variance = [0.0] * n
    for i in range(n):
        variance[n - i - 1] = (t[i] ** 2 - t[i + 1] ** 2) * t[i + 1] ** 2 / t[i] ** 2
    offset = 1 / ((1 - t0) * n) * math.log((1 - pi) * 3 / (3 - 1))
    lower = math.floor(t1 * n)
    a = t1 * n - lower
    temp = abs(2 * ((1 - a) * variance[lower] + a * variance[lower + 1]) / 10 * offset)
    least = math.log((1 - pi) * (largest - w + 1) / (largest - w))
    posterior = torch.zeros(len(steps[0][1]), dtype=torch.float64)
    for i, (moment, x, c, u, _) in enumerate(steps):
        x = x / space.alpha(moment.sigma)
        if i > 0:
            before, c0, u0 = steps[i - 1][1] / space.alpha(steps[i - 1][0].sigma), steps[i - 1][2], steps[i - 1][3]
            mean = lambda D: t[i] ** 2 / t[i - 1] ** 2 * before + (t[i - 1] ** 2 - t[i] ** 2) / t[i - 1] ** 2 * D
            error = lambda D: ((x - mean(D)) ** 2).flatten(1).sum(1)
            posterior = posterior - temp / (2 * variance[n - i]) * (error(c0) - error(u0)) + offset
            posterior = posterior.clamp(min=least, max=3.0)
        p = posterior.exp()
        yield p / (p - (1 - pi)) + w - 1


FEEDBACK = [(0.999, 0.556, 0.429, 10.0), (0.95, 0.5, 0.4, 10.0), (0.6, 0.1, 0.3, 4.0)]


@pytest.mark.parametrize("w", [1.0, 2.5])
@pytest.mark.parametrize("knobs", FEEDBACK, ids=str)
@spaces
@shapes
def test_feedback_guidance_is_the_authors(shape, space, knobs, w):
    steps = list(path(fbg(*knobs), line(space), w, shape))
    scales = list(koulischer(steps, space, *knobs, w))
    for (_, _, c, u, answer), scale in zip(steps, scales):
        same(answer, u + scale.view(-1, *[1] * (c.ndim - 1)) * (c - u), 1e-10)
    assert len({round(float(scale[0]), 3) for scale in scales}) > 2  # they are no constant


def scales_of(step, run, **how):
    """The scale of each sample at each step."""
    for _, _, c, u, answer in path(step, run, **how):
        yield ((answer - u) / (c - u)).flatten(1).mean(1)


@spaces
def test_without_drift_the_scale_is_one_over_pi(space):
    for scale in scales_of(fbg(1 / 3), line(space)):
        same(scale, torch.full_like(scale, 3.0), 1e-9)


@spaces
def test_where_nothing_is_learnt_the_scale_is_3_at_t0(space):
    """Predictions that hardly differ tell nothing of the path."""
    found = list(scales_of(fbg(0.99, t0=0.5), line(space, 10), apart=1e-6))
    assert torch.allclose(found[5], torch.full_like(found[5], 3.0), rtol=1e-4)
    assert all((a < b).all() for a, b in zip(found[:6], found[1:6]))


def test_the_scale_is_never_above_the_largest():
    for largest, w in product((1.5, 4.0, 30.0), (1.0, 1.4)):
        for scale in scales_of(fbg(0.5, 0.0, 0.0, largest), line(FLOW), w=w):
            assert (scale <= largest + 1e-9).all() and (scale >= 1).all()


def test_feedback_off_hands_back_the_state_and_asks_for_nothing():
    for make in (partial(fbg, 1.0), partial(fbg, window=CLOSED), partial(fbg, largest=1.0), partial(fbg, largest=2.0)):
        step, moment = make(), line(FLOW).moments(2.0)[3]
        given = state(step, moment, *tensors(3))
        assert given.moment == moment and step.apply(given) is given


def test_feedback_from_pure_noise_is_the_limit_of_almost_pure_noise():
    """A flow model's first sigma is 1, where its picture is not there at all."""
    first, near = (list(path(fbg(0.9), line(FLOW, first=first))) for first in (1.0, 1 - 1e-9))
    for (*_, one), (*_, other) in zip(first, near):
        same(one, other, 1e-6)


def test_feedback_of_a_batch_is_that_of_its_samples():
    whole = list(path(fbg(0.9), line(EPS)))
    alone = fbg(0.9)
    for moment, x, c, u, answer in whole:
        same(alone.apply(state(alone, moment, x[1:2], c[1:2], u[1:2])).denoised, answer[1:2])


def test_between_two_steps_the_scale_is_that_of_the_step():
    """dpm_2 evaluates a step at its start and in its middle."""
    step, run = fbg(0.9), line(EPS)
    reference = list(path(fbg(0.9), run))
    for moment, x, c, u, answer in reference:
        same(step.apply(state(step, moment, x, c, u)).denoised, answer)
        if moment.sigma_next > 0:
            middle = run.moment((moment.sigma * moment.sigma_next) ** 0.5, 1.0)
            moved = step.apply(state(step, middle, x + 1, c + 1, u + 1)).denoised
            same(moved - 1, answer)


# ------------------------------------------------------------------------------------------------ a look ahead

@pytest.mark.parametrize("ahead, gamma", [(0.5, 0.0), (1.0, 2.0), (0.3, 0.5)])
@spaces
def test_rectified_cfgpp_is_the_papers_velocity(space, ahead, gamma):
    step, run = rect_cfgpp(ahead, gamma), line(space)
    for i, w in product((0, 3, 6), (2.0, 5.5, 0.0)):
        x, c, u, c_ahead, u_ahead = tensors(5, seed=i)
        moment = run.moment(run.sigmas[i], w)
        sigma, there = moment.sigma, moment.sigma + ahead * (moment.sigma_next - moment.sigma)
        branches = {Ahead(there, True): c_ahead, Ahead(there, False): u_ahead}
        planned = step.plan(moment)
        assert planned.asked == branches.keys() and (planned.rows, planned.calls) == (3, 2)
        t = sigma / (sigma + space.alpha(sigma))
        y = x + (there - sigma) * (x - c) / sigma
        v = (x - c) / sigma + (w - 1) * (1 - t) ** gamma * ((y - c_ahead) / there - (y - u_ahead) / there)
        same(step.answer(state(step, moment, x, c, u, branches)).denoised, x - sigma * v, 1e-10)


def test_ahead_by_nothing_is_cfg_and_scale_1_is_the_prompt():
    for make, w in ((partial(rect_cfgpp, 0.0), 7.0), (partial(rect_cfgpp, window=CLOSED), 7.0), (rect_cfgpp, 1.0)):
        step, moment = make(), line(FLOW).moments(w)[3]
        given = state(step, moment, *tensors(3))
        assert given.moment == moment and step.answer(given) is given


def test_the_same_velocities_ahead_are_cfg():
    run, step = line(FLOW), rect_cfgpp()
    x, c, u = tensors(3)
    moment = step.plan(run.moments(4.0)[2])
    pair = sorted(moment.asked, key=lambda branch: branch.prompt)
    y = x + (pair[0].sigma - moment.sigma) * (x - c) / moment.sigma
    there = {branch: y - pair[0].sigma * (x - D) / moment.sigma for branch, D in zip(pair, (u, c))}
    same(step.answer(state(step, moment, x, c, u, there)).denoised, u + 4.0 * (c - u), 1e-12)


def test_compress_leaves_out_what_is_ahead_and_goes_on_in_its_direction():
    step, run, found = chain(rect_cfgpp(), compress(0.5)), line(FLOW), []
    for i, moment in enumerate(run.moments(3.0)):
        x, c, u, a, b = tensors(5, seed=i)
        given = state(step, moment, x, c, u, dict(zip(sorted(step.plan(moment).asked, key=repr), (a, b))) if i % 2 == 0 else {})
        found.append((given.moment.rows if i % 2 == 0 else 1, step.answer(given).denoised - c))
    assert [rows for rows, _ in found] == [3, 1] * 4
    same(found[1][1], found[0][1])


# ------------------------------------------------------------------------------------------------ a wrong time

def test_time_step_guidance_is_the_papers_extrapolation():
    """w = scale + 1: mistimed + w * (cond - mistimed)."""
    step, run = tsg(3.0, 0.3), line(FLOW)
    for moment in run.moments(1.0):
        x, c, u, mistimed = tensors(4)
        (branch,) = step.plan(moment).asked
        assert branch.sigma == moment.sigma != branch.told and 0.01 <= branch.told <= 0.99
        same(step.apply(state(step, moment, x, c, u, {branch: mistimed})).denoised, mistimed + 4.0 * (c - mistimed))
        same(step.apply(state(step, moment, x, c, u, {branch: c})).denoised, c)


def test_the_wrong_time_is_as_far_off_as_the_paper_says():
    run = Timeline(tuple(1 - i / 4000 for i in range(4001)))
    for power in (0.0, 1.0):
        step = tsg(1.0, 0.02, power)
        moved = [(next(iter(step.plan(moment).asked)).told - moment.sigma) / moment.sigma**power for moment in run.moments(1.0)[400:3600]]
        moved = torch.tensor(moved, dtype=torch.float64)
        assert abs(moved.mean()) < 0.02 * 3 / 3200**0.5 and abs(moved.std() / 0.02 - 1) < 0.05


def test_a_seed_has_its_own_times_and_every_evaluation_of_a_step_the_same_offset():
    run = line(FLOW)
    told = lambda step, sigma: next(iter(step.plan(run.moment(sigma, 1.0)).asked)).told
    one, again, other = tsg(power=0.0), tsg(power=0.0), tsg(power=0.0, seed=1)
    for a, b in zip(run.sigmas[1:-2], run.sigmas[2:]):
        assert told(one, a) == told(again, a) != told(other, a)
        middle = (a + b) / 2
        assert told(one, middle) - middle == pytest.approx(told(one, a) - a, abs=1e-12)


@pytest.mark.parametrize("make", [partial(tsg, 0.0), partial(tsg, spread=0.0), partial(tsg, window=CLOSED), partial(swg, 0.0),
                                  partial(swg, size=1.0), partial(swg, window=CLOSED)])
def test_what_is_off_asks_for_nothing_and_hands_back_the_state(make):
    step, moment = make(), line(FLOW).moments(7.0)[3]
    given = state(step, moment, *tensors(3))
    assert given.moment == moment and step.apply(given) is given


# ------------------------------------------------------------------------------------------------ windows

@pytest.mark.parametrize("side", [1, 2, 5, 16, 33, 64, 67, 128, 152])
def test_windows_cover_a_side_without_leaving_it_and_their_sizes_can_be_halved(side):
    for count in (2, 3, 5):
        for share in (1 / count, 0.625, 0.9, 1.0):
            if share * count < 1:
                continue
            windows = Cropped(share, count).windows(side)
            seen = [sum(start <= i < start + size for start, size in windows) for i in range(side)]
            assert len(windows) == count and min(seen) >= 1
            assert all(0 <= start and start + size <= side and size >= share * side for start, size in windows)
            assert all(size == side or size % (8 if side >= 64 else 2) == 0 for _, size in windows)


def test_the_papers_windows():
    assert Cropped(0.625, 2).windows(64) == [(0, 40), (24, 40)]


@pytest.mark.parametrize("masked", [True, False])
def test_sliding_windows_guide_away_and_masked_only_where_they_overlap(masked):
    step = swg(0.3, 0.6, 2, masked)
    x, c, u, cropped = tensors(4, (2, 4, 10, 16))
    moment = line(EPS).moments(1.0)[3]
    (branch,) = step.plan(moment).asked
    assert (step.plan(moment).rows, step.plan(moment).calls) == (5, 2)
    term = step.apply(state(step, moment, x, c, u, {branch: cropped})).denoised - c
    right = 0.3 * (c - cropped)
    if masked:  # windows of 6 from 0 and 4, and of 10 from 0 and 6
        right[..., :4, :6] = right[..., 6:, :6] = right[..., :4, 10:] = right[..., 6:, 10:] = 0
    same(term, right)


def test_what_shares_a_forward():
    moment = line(EPS).moments(1.0)[3]
    calls = lambda *branches: moment.ask(*branches).calls
    assert calls(Mistimed(1.0, 2.0)) == 1
    assert calls(Ahead(0.5, True), Ahead(0.5, False), Mistimed(1.0, 2.0)) == 2
    assert calls(Ahead(0.5, True), Ahead(0.4, True), Cropped(0.6, 2), Cropped(0.6, 3)) == 5
