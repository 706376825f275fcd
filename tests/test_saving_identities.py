"""The papers' own identities, in float64 and away from the host: fewer evaluations, weak models, CADS, classifiers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pack.guidance import (
    Window,
    adaptive,
    alternate,
    autoguidance,
    budget,
    cads,
    classifier,
    compress,
    interval,
    pag,
    perp_cfg,
)
from pack.guidance.cads import anneal, remaining
from pack.guidance.compress import guided_steps
from pack.guidance.core import UNCOND, Perturbed, State, Step, Timeline, Weak, chain
from pack.guidance.schedule import parse
from pack.guidance.space import EPS, FLOW
from pack.lab.mixture.exact import Mixture

SPACES = {"eps": EPS, "flow": FLOW}
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
shapes = pytest.mark.parametrize("shape", [(2, 4, 40), (2, 4, 6, 5), (2, 4, 3, 4, 5)], ids=["3-D", "4-D", "5-D"])
scales = pytest.mark.parametrize("w", [0.0, 1.0, 2.1, -2.0])
WEAK = Weak("weak")


def line(space=EPS, steps=4):
    high = 1.0 if space is FLOW else 10.0
    sigmas = tuple(high * (1 - i / steps) for i in range(steps + 1))
    return Timeline(sigmas, space=space, percent=lambda s: 1 - s / high, sigma_at=lambda p: (1 - p) * high)


def moment(space=EPS, w=7.0, i=2):
    return line(space).moment(line(space).sigmas[i], w)


def tensors(shape=(2, 4, 6, 5), n=3):
    return [torch.randn(shape, dtype=torch.float64) for _ in range(n)]


def given(at, x, c, u, **branches):
    """The state that the host makes of a planned moment: where it leaves uncond out, cond stands in."""
    u = u if at.uncond in at.needs else c
    return State(at, x, c, u, u + at.combined * (c - u), branches.get("branches", {}))


def answer(step, at, x, c, u, **branches):
    return step.answer(given(step.plan(at), x, c, u, **branches)).denoised


def same(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def skipped(step, n=6, w=7.0):
    return [not step.plan(at).needs for at in line(steps=n).moments(w)]


# ------------------------------------------------------------------------------------------------ leaving uncond out

def test_uncond_is_left_out_only_where_no_step_has_asked_for_it():
    at = replace(moment(), skip=True)
    assert (at.needs, at.rows, at.combined, at.scale) == (frozenset(), 1, 1.0, 7.0)
    asked = at.ask(UNCOND)
    assert (asked.needs, asked.rows, asked.combined) == ({UNCOND}, 2, 7.0)


@pytest.mark.parametrize("w", [0.0, 2.1, 7.0])
def test_redirecting_what_was_left_out_gives_what_computing_it_would_have_given(w):
    x, c, u = tensors()
    left_out = given(replace(moment(w=w), skip=True), x, c, u).redirect(c - u)
    computed = given(moment(w=w), x, c, u)
    same(left_out.denoised, computed.denoised)
    same(left_out.uncond, computed.uncond)
    same(left_out.direction, computed.direction)
    assert left_out.scale == computed.scale


# ------------------------------------------------------------------------------------------------ adaptive guidance

def apart(c, ratio):
    """An uncond at this distance from cond, in units of cond's norm."""
    other = torch.randn_like(c)
    length = c.flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1)
    return c + ratio * length.view(-1, *[1] * (c.ndim - 1)) * other


@shapes
def test_adaptive_guidance_stops_below_the_threshold_and_not_above(shape):
    x, c, _ = tensors(shape)
    for ratio, stops in [(0.0201, False), (0.0199, True)]:
        step = adaptive("norm", 0.02)
        same(answer(step, moment(), x, c, u := apart(c, ratio)), u + 7 * (c - u))  # the evaluation itself is guided
        assert (not step.plan(moment()).needs) is stops


@shapes
def test_the_cosine_is_that_of_the_noise_predictions(shape):
    x, c, u = tensors(shape)
    u = c + 0.2 * u
    apart = 1 - F.cosine_similarity((x - c).flatten(1), (x - u).flatten(1)).max()  # both samples have to agree
    worst = 1 - F.cosine_similarity((x - c).flatten(1), (x - u).flatten(1)).min()
    for threshold, stops in [(float(worst) + 1e-9, True), (float(worst) - 1e-9, False), (float(apart) - 1e-9, False)]:
        step = adaptive("cosine", threshold, arm=1000.0)
        answer(step, moment(), x, c, u)
        assert (not step.plan(moment()).needs) is stops


def test_the_cosine_does_not_count_above_the_sigma_that_arms_it():
    x, c, u = tensors()
    step = adaptive("cosine", 2.0, arm=6.0)
    seen = []
    for at in line().moments(7.0):  # sigmas 10, 7.5, 5, 2.5
        at = step.plan(at)
        seen.append(not at.needs)
        step.apply(given(at, x, c, u))
    assert seen == [False, False, False, True]


def test_having_stopped_is_for_good():
    x, c, u = tensors()
    step = adaptive("norm", 0.5)
    answer(step, moment(), x, c, apart(c, 0.1))
    for _ in range(3):
        same(answer(step, moment(), x, c, u), c)


def test_each_sample_stops_on_its_own_and_rows_are_saved_once_all_have():
    x, c, _ = tensors()
    u = torch.cat([apart(c, 0.1)[:1], apart(c, 0.9)[1:]])
    step = adaptive("norm", 0.5)
    answer(step, moment(), x, c, u)
    assert step.plan(moment()).needs
    same(answer(step, moment(), x, c, u), torch.cat([c[:1], (u + 7 * (c - u))[1:]]))
    answer(step, moment(), x, c, torch.cat([apart(c, 0.9)[:1], apart(c, 0.1)[1:]]))
    assert not step.plan(moment()).needs


def test_predictions_without_any_difference_do_not_stop_it():
    x, c, _ = tensors()
    for knobs in (("norm", 2.0), ("cosine", 2.0, 1000.0)):
        step = adaptive(*knobs)
        same(answer(step, moment(), x, c, c), c)
        assert step.plan(moment()).needs


def test_where_the_scale_is_one_nothing_is_compared():
    x, c, u = tensors()
    step = adaptive("norm", 2.0)
    answer(step, moment(w=1.0), x, c, u)
    assert step.plan(moment()).needs


def test_adaptive_guidance_at_threshold_zero_hands_back_what_came_in():
    state = given(moment(), *tensors())
    assert adaptive(threshold=0.0).apply(state) is state


# Two classes of two unequal Gaussians in the plane, and everything about them that is known exactly.
MIXTURE = Mixture(
    means=torch.tensor([[-1.0, -0.6], [-1.0, 0.9], [1.0, 0.2], [1.1, -0.8]], dtype=torch.float64),
    weights=torch.tensor([0.4, 0.2, 0.1, 0.3], dtype=torch.float64),
    classes=torch.tensor([0, 0, 1, 1]),
    variance=torch.full((2,), 0.15**2, dtype=torch.float64),
)
SECOND = MIXTURE.only(1)


def run(step, sigmas, x, w=4.0):
    """Euler on the mixture's second class: (where it ends, model evaluations)."""
    rows, timeline = 0, Timeline(tuple(sigmas))
    for i, at in enumerate(timeline.moments(w)):
        at = step.plan(at)
        rows += at.rows
        c, u = MIXTURE.denoised(x, at.sigma, EPS, SECOND), MIXTURE.denoised(x, at.sigma, EPS)
        denoised = step.apply(given(at, x, c, u)).denoised
        x = denoised + sigmas[i + 1] / at.sigma * (x - denoised)
    return x, rows


def test_on_an_exact_model_a_quarter_of_the_evaluations_goes_and_the_answer_stays():
    sigmas = [(10 ** (1 / 7) + i / 31 * (0.02 ** (1 / 7) - 10 ** (1 / 7))) ** 7 for i in range(32)] + [0.0]
    start = 10 * torch.randn(1, 2, dtype=torch.float64)
    full, rows = run(Step(), sigmas, start)
    assert rows == 64
    norm, rows = run(adaptive("norm", 0.01), sigmas, start)
    assert 32 + 8 <= rows <= 50
    same(norm, full, 1e-2)
    unarmed, rows = run(adaptive("cosine", 0.01, arm=1000.0), sigmas, start)  # at high noise all noise is alike
    assert rows <= 34 and (unarmed - full).abs().max() > 1e-2
    armed, rows = run(adaptive("cosine", 0.01), sigmas, start)
    assert rows <= 52
    same(armed, full, 1e-2)


# ------------------------------------------------------------------------------------------------ at some steps only

def test_alternate_guidance_guides_at_every_other_step_and_only_skips_in_its_window():
    assert skipped(alternate()) == [False, True, False, True, False, True]
    assert skipped(alternate(3)) == [False, True, True, False, True, True]
    assert skipped(alternate(1)) == [False] * 6
    assert skipped(alternate(2, Window(0.5))) == [False, False, False, True, False, True]
    assert skipped(alternate(2, Window(0.0, 0.0))) == [False] * 6


def test_both_evaluations_within_a_step_belong_to_it():
    timeline = line(steps=4)  # sigmas 10, 7.5, 5, 2.5
    assert [not alternate().plan(timeline.moment(s, 7.0)).needs for s in (10.0, 8.6, 7.5, 6.1)] == [False, False, True, True]


def test_what_leaves_steps_unguided_leaves_them_so_for_a_weak_model():
    for step in (chain(autoguidance("weak"), alternate()), chain(alternate(), autoguidance("weak"))):
        assert [step.plan(at).rows for at in line().moments(7.0)] == [2, 1, 2, 1]
    x, c, _, weak = tensors(n=4)
    step = chain(autoguidance("weak"), adaptive("norm", 100.0))
    rows = []
    for at in line().moments(7.0):
        at = step.plan(at)
        rows.append(at.rows)
        step.answer(given(at, x, c, c, branches={WEAK: weak} if WEAK in at.asked else {}))
    assert rows == [2, 1, 1, 1]


def test_compress_guidance_spreads_its_steps_by_the_power():
    assert guided_steps(10, 0.5, 1.0) == {0, 2, 4, 6, 8}
    assert guided_steps(10, 0.6, 1.0) == {0, 1, 3, 5, 6, 8}
    assert guided_steps(10, 0.5, 2.0) == {0, 1, 3, 6}  # 0, .4, 1.6, 3.6, 6.4: the first two coincide
    assert guided_steps(10, 1.0, 1.0) == set(range(10))
    assert guided_steps(3, 0.01, 1.0) == {0}
    assert skipped(compress(0.5)) == [False, True, False, True, False, True]


def test_compress_guidance_guides_every_step_that_is_to_be_guided():
    """What a step without guidance has for a direction is nobody's direction."""
    x, c, u = tensors()
    step, pushed = chain(compress(0.2), interval(Window(0.3, 0.6))), []
    for at in line(steps=20).moments(7.0):
        found = answer(step, at, x, c, u)
        pushed.append(float((found - c).norm() / (6 * (c - u).norm())))
    assert pushed == pytest.approx([0] * 6 + [1] * 6 + [0] * 8)
    step = chain(compress(0.2), interval(Window(0.3, 0.6)))
    assert sum(step.plan(at).rows for at in line(steps=20).moments(7.0)) == 20 + 2


def test_compress_guidance_saves_a_weak_models_row_too_where_it_comes_after():
    x, c, u, weak = tensors(n=4)
    step = chain(autoguidance("weak"), compress(0.5))
    for at, rows in zip(line().moments(7.0), (2, 1, 2, 1)):
        planned = step.plan(at)
        assert planned.rows == rows
        branches = {WEAK: weak} if WEAK in planned.asked else {}
        same(step.answer(given(planned, x, c, u, branches=branches)).denoised, weak + 7 * (c - weak))


def compressed(step, n=4, change=0.0, w=7.0):
    """Answers, and plain CFG's, where the direction changes by `change` from each step to the next."""
    direction, found, plain = torch.randn(2, 4, 6, 5, dtype=torch.float64), [], []
    for i, at in enumerate(line(steps=n).moments(w)):
        x, c = tensors(n=2)
        u = c - (1 + change * i) * direction
        found.append(answer(step, at, x, c, u))
        plain.append(u + w * (c - u))
    return found, plain, direction


def test_compress_guidance_is_cfg_where_the_direction_does_not_change():
    for a, b in zip(*compressed(compress(0.5))[:2]):
        same(a, b)


def test_between_its_steps_compress_guidance_is_off_by_the_change_of_the_direction():
    found, plain, direction = compressed(compress(0.5), change=0.1)
    for i, error in enumerate([0, 0.1, 0, 0.1]):
        same(plain[i] - found[i], 6 * error * direction)


@pytest.mark.parametrize("reuse", [0.0, 0.5, parse("0.5")], ids=str)
def test_compress_guidance_reuses_as_much_of_the_direction_as_it_is_told(reuse):
    found, plain, direction = compressed(compress(0.5, reuse=reuse))
    part = 0.0 if reuse == 0 else 0.5
    same(plain[1] - found[1], (1 - part) * 6 * direction)
    same(found[2], plain[2])


def test_compress_guidance_keeps_what_steps_before_it_made_of_the_direction_and_steps_after_it_edit_it():
    before, after = chain(perp_cfg(), compress(0.5)), chain(compress(0.5), perp_cfg())
    x, c, u = tensors()
    first, second = line().moments(7.0)[:2]
    for step in (before, after):
        guided = answer(step, first, x, c, u)
        same(answer(step, second, x, c, u), guided)  # the same predictions again, but uncond was not computed
    same(guided, answer(perp_cfg(), first, x, c, u))


def test_compress_guidance_with_every_step_hands_back_what_came_in():
    state = given(moment(), *tensors())
    assert compress(1.0).apply(state) is state
    assert skipped(compress(1.0)) == [False] * 6


# ------------------------------------------------------------------------------------------------ a cap on rows

@pytest.mark.parametrize("spend", ["first", "even"])
@pytest.mark.parametrize("steps, cap", [(6, 12), (6, 9), (6, 7), (6, 6), (20, 30), (20, 33), (7, 10)])
def test_a_budget_is_spent_to_the_row_and_not_exceeded(spend, steps, cap):
    step = budget(cap, spend)
    assert sum(step.plan(at).rows for at in line(steps=steps).moments(7.0)) == cap


@pytest.mark.parametrize("spend", ["first", "even"])
@pytest.mark.parametrize("cap, ahead, known", [(39, 1, True), (50, 1, True), (60, 1, True), (60, 2, True), (90, 2, True),
                                               (60, 1, False), (90, 2, False)])
def test_a_sampler_that_looks_ahead_does_not_exceed_it(ahead, known, cap, spend):
    """As heun and heunpp2 do, which evaluate the following one or two grid points at every step but the last."""
    timeline = replace(line(steps=20), evaluations=1 + ahead if known else None)
    step, sigmas = budget(cap, spend), timeline.sigmas
    met = [sigmas[j] for i in range(20) for j in range(i, min(i + ahead, 19) + 1)]
    rows = sum(step.plan(timeline.moment(sigma, 7.0)).rows for sigma in met)
    assert rows <= cap and (not known or rows >= cap - 2)


def test_a_budget_counts_a_weak_models_rows():
    step = chain(autoguidance("weak"), budget(9))
    assert [step.plan(at).rows for at in line(steps=6).moments(7.0)] == [2, 2, 2, 1, 1, 1]


def test_first_guides_the_first_steps_and_even_spreads_them():
    assert skipped(budget(9, "first")) == [False, False, False, True, True, True]
    assert skipped(budget(9, "even")) == [True, False, True, False, True, False]
    assert skipped(budget(0)) == [False] * 6
    assert skipped(budget(3)) == [True] * 6  # every step takes one row


def test_a_budget_counts_the_branches_before_it_and_drops_them_too():
    step = chain(pag(["middle.0.0"]), budget(9))
    assert [step.plan(at).rows for at in line(steps=4).moments(7.0)] == [3, 3, 1, 1]
    step = chain(pag(["middle.0.0"]), budget(12))
    assert [step.plan(at).rows for at in line(steps=4).moments(7.0)] == [3, 3, 3, 3]


def test_where_the_scale_is_one_a_budget_is_not_spent():
    step = budget(7)
    rows = [step.plan(at).rows for at in [*line(steps=6).moments(1.0)[:4], *line(steps=6).moments(7.0)[4:]]]
    assert rows == [1, 1, 1, 1, 2, 1]


# ------------------------------------------------------------------------------------------------ autoguidance

@shapes
@scales
def test_autoguidance_is_cfg_with_the_weak_prediction_for_uncond(shape, w):
    x, c, u, weak = tensors(shape, 4)
    step = autoguidance("weak")
    assert step.plan(moment(w=w)).needs == (frozenset() if w == 1 else {WEAK})  # no uncond, and neither at scale 1
    same(answer(step, moment(w=w), x, c, u, branches={} if w == 1 else {WEAK: weak}), weak + w * (c - weak))


@pytest.mark.parametrize("share", [0.25, 0.6])
@scales
def test_with_cfg_the_weight_is_split(share, w):
    x, c, u, weak = tensors(n=4)
    step = autoguidance("weak", share)
    assert step.plan(moment(w=w)).needs == (frozenset() if w == 1 else {UNCOND, WEAK})
    expected = c + (w - 1) * ((1 - share) * (c - u) + share * (c - weak))
    same(answer(step, moment(w=w), x, c, u, branches={} if w == 1 else {WEAK: weak}), expected)


def test_at_share_zero_autoguidance_is_cfg_and_asks_for_nothing():
    state = given(moment(), *tensors())
    assert autoguidance("weak", 0.0).answer(state) is state
    assert autoguidance("weak", 0.0).plan(moment()).needs == {UNCOND}


@scales
def test_a_weak_model_that_is_as_good_changes_nothing(w):
    x, c, u = tensors()
    same(answer(autoguidance("weak"), moment(w=w), x, c, u, branches={WEAK: c}), c)


@spaces
def test_autoguidance_is_the_same_in_every_space(space):
    x, c, u, weak = tensors(n=4)
    sigma = line(space).sigmas[2]
    a, b = space.output(x, c, sigma), space.output(x, weak, sigma)
    same(answer(autoguidance("weak"), moment(space, 2.1), x, c, u, branches={WEAK: weak}),
         space.denoised(x, b + 2.1 * (a - b), sigma))


def test_for_the_steps_after_autoguidance_the_weak_prediction_is_uncond():
    x, c, u, weak = tensors(n=4)
    chained = answer(chain(autoguidance("weak"), perp_cfg()), moment(), x, c, u, branches={WEAK: weak})
    same(chained, answer(perp_cfg(), moment(), x, c, weak))


# ------------------------------------------------------------------------------------------------ CADS

def embedding():
    return 3 * torch.randn(2, 7, 16, dtype=torch.float64) + 0.5


def test_the_prompt_returns_between_tau2_and_tau1():
    assert [remaining(t, 0.6, 0.9) for t in (0.0, 0.6, 0.9, 1.0)] == [1.0, 1.0, 0.0, 0.0]
    assert remaining(0.75, 0.6, 0.9) == pytest.approx(0.5)
    assert [remaining(t, 0.6, 0.6) for t in (0.6, 0.61)] == [1.0, 0.0]


def test_below_tau1_the_prompt_is_left_alone():
    timeline = line(steps=10)
    embeds = [cads(start=0.6, full=0.9).plan(at).embed for at in timeline.moments(7.0)]
    assert [embed is None for embed in embeds] == [False] * 4 + [True] * 6


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_cads_without_restoring_is_its_formula_and_with_it_mean_and_deviation_stay(kept):
    y, n = embedding(), torch.randn(2, 7, 16, dtype=torch.float64)
    size = y.flatten(1).std(dim=1, correction=0).view(-1, 1, 1)
    same(anneal(y, kept, 0.25, 0.0, n), kept**0.5 * y + 0.25 * (1 - kept) ** 0.5 * size * n)
    for restore in (0.0, 1.0):  # an encoder of other units means the same
        same(anneal(40 * y, kept, 0.25, restore, n), 40 * anneal(y, kept, 0.25, restore, n))
    restored = anneal(y, kept, 0.25, 1.0, n)
    for i in range(2):
        same(restored[i].mean(), y[i].mean())
        same(restored[i].std(), y[i].std())
    same(anneal(y, kept, 0.25, 0.4, n), 0.4 * restored + 0.6 * anneal(y, kept, 0.25, 0.0, n))


def test_without_noise_restoring_gives_the_prompt_back():
    y = embedding()
    same(anneal(y, 0.3, 0.0, 1.0, torch.zeros_like(y)), y)
    assert anneal(y, 0.0, 0.0, 1.0, torch.zeros_like(y)).isfinite().all()


def test_noise_0_is_off():
    for noise in (0.0, parse("0:0, 0.2:0, 1:1")):
        at = line().moments(7.0)[0]
        assert cads(noise).plan(at) is at


def test_every_sample_step_and_seed_has_noise_of_its_own_and_always_the_same():
    y = torch.tensor([-1.0, 1.0]).repeat(3, 5, 4)

    def noised(y, i=0, seed=0):
        kept = remaining(0.75, 0.6, 0.9) if i else 0.0
        return cads(noise=1.0, restore=0.0, seed=seed).plan(line().moments(7.0)[i]).embed(y) - kept**0.5 * y

    assert torch.equal(noised(y), noised(y))
    assert torch.equal(noised(y)[:1], noised(y[:1]))
    for other in (noised(y)[1], noised(y, seed=1)[0], noised(y, i=1)[0] / (1 - remaining(0.75, 0.6, 0.9)) ** 0.5):
        assert (other - noised(y)[0]).abs().max() > 0.1
    assert noised(torch.tensor([-3.0, 3.0]).repeat(1, 40, 50)).std() == pytest.approx(3, abs=0.15)


def test_two_of_them_both_act():
    at = line().moments(7.0)[0]
    both = chain(cads(1.0, restore=0.0, seed=1), cads(1.0, full=1.0, start=0.9, restore=0.0, seed=2)).plan(at).embed
    alone = cads(1.0, full=1.0, start=0.9, restore=0.0, seed=2).plan(at).embed
    y = embedding()
    assert torch.equal(both(y), alone(cads(1.0, restore=0.0, seed=1).plan(at).embed(y)))


# ------------------------------------------------------------------------------------------------ classifier guidance

@shapes
@spaces
def test_a_constant_gradient_moves_x0_by_the_papers_factor(shape, space):
    x, c, u, g = tensors(shape, 4)
    at = moment(space)
    sigma, alpha = at.sigma, space.alpha(at.sigma)
    plain = u + 7 * (c - u)
    linear = lambda latents, sigma: (latents * g).flatten(1).sum(1)
    same(answer(classifier(linear, 1.5, "x"), at, x, c, u), plain + 1.5 * sigma**2 / alpha * g)
    same(answer(classifier(linear, 1.5, "x0"), at, x, c, u), plain + 1.5 * sigma**2 / (sigma**2 + alpha**2) * g)


@spaces
def test_with_the_exact_noisy_classifier_it_is_bayes_rule(space):
    for at in line(space).moments(1.0)[space is FLOW:]:
        x = at.sigma * torch.randn(50, 2, dtype=torch.float64)
        unconditional = MIXTURE.denoised(x, at.sigma, space)
        step = classifier(lambda latents, sigma: MIXTURE.log_class(latents, sigma, space, SECOND), 1.0, "x")
        same(answer(step, at, x, unconditional, unconditional), MIXTURE.denoised(x, at.sigma, space, SECOND))


@spaces
def test_the_gradient_of_the_exact_classifier_is_cfgs_direction(space):
    at = moment(space, w=3.0, i=1)
    x = at.sigma * torch.randn(50, 2, dtype=torch.float64)
    c, u = MIXTURE.denoised(x, at.sigma, space, SECOND), MIXTURE.denoised(x, at.sigma, space)
    step = classifier(lambda latents, sigma: MIXTURE.log_class(latents, sigma, space, SECOND), 2.0, "x")
    same(answer(step, replace(at, scale=1.0), x, c, u), u + 3 * (c - u))


@spaces
def test_at_x0_it_is_exact_for_gaussian_data_and_a_linear_likelihood(space):
    x, g = tensors(n=2)
    for at in line(space).moments(1.0):
        sigma, alpha = at.sigma, space.alpha(at.sigma)
        # x0 ~ N(0, 1) tilted by exp(g x0) is N(g, 1), and x = alpha x0 + sigma noise.
        prior, tilted = (mean + alpha / (alpha**2 + sigma**2) * (x - alpha * mean) for mean in (torch.zeros_like(g), g))
        step = classifier(lambda latents, sigma: (latents * g).flatten(1).sum(1))
        same(answer(step, at, x, prior, prior), tilted)


def test_each_sample_follows_its_own_likelihood():
    x, c, u = tensors()
    step = classifier(lambda latents, sigma: -latents.square().flatten(1).sum(1) ** 2)
    whole = answer(step, moment(), x, c, u)
    same(whole[:1], answer(step, moment(), x[:1], c[:1], u[:1]))


def test_gradients_stay_inside_the_step():
    x, c, u = tensors()
    step = classifier(lambda latents, sigma: latents.sin().flatten(1).sum(1), where="x")
    with torch.no_grad():
        expected = answer(step, moment(), x, c, u)
        assert not expected.requires_grad and not torch.is_grad_enabled()
    with torch.inference_mode():  # as the host runs its nodes
        found = answer(step, moment(), *(tensor.clone() for tensor in (x, c, u)))
        assert torch.is_inference_mode_enabled()
        same(found, expected)


def test_off_hands_back_what_came_in_and_a_flow_models_first_step_has_no_noisy_classifier():
    state = given(moment(), *tensors())
    assert classifier(None, 0.0).apply(state) is state
    first = given(moment(FLOW, i=0), *tensors())
    assert classifier(None, 1.0, "x").apply(first) is first


# ------------------------------------------------------------------------------------------------ precision

PERTURBED = Perturbed("identity", ("middle.0.0",))
REFERENCES = {
    "autoguidance": (lambda: autoguidance("weak", 0.4), lambda x, c, u, weak: c + 6 * (0.6 * (c - u) + 0.4 * (c - weak))),
    "compress": (lambda: compress(0.5), lambda x, c, u, weak: u + 7 * (c - u)),
    "classifier": (lambda: classifier(lambda latents, sigma: latents.sin().flatten(1).sum(1)),
                   lambda x, c, u, weak: u + 7 * (c - u) + 25 / 26 * (u + 7 * (c - u)).cos()),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_float32_is_as_close_to_the_formula_as_float32_allows(name):
    make, formula = REFERENCES[name]
    x, c, u, weak = tensors((2, 16, 32, 32), 4)
    expected = formula(x, c, u, weak)
    step = make()
    for at in line().moments(7.0)[2 if name == "classifier" else 0:3]:
        at = step.plan(at)
        branches = {WEAK: weak.float()} if WEAK in at.asked else {}
        found = step.answer(given(at, x.float(), c.float(), u.float(), branches=branches)).denoised
    error = float((found.double() - expected).abs().max() / expected.abs().max())
    assert error < 8 * 2**-24


def test_annealing_in_float32_is_as_close_to_float64():
    y, n = embedding(), torch.randn(2, 7, 16, dtype=torch.float64)
    expected = anneal(y, 0.3, 0.25, 1.0, n)
    error = (anneal(y.float(), 0.3, 0.25, 1.0, n.float()).double() - expected).abs().max() / expected.abs().max()
    assert float(error) < 8 * 2**-24
