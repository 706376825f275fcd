"""The papers' own identities, in float64 and away from the host: CFG, intervals, negatives, CFG++, Perp-CFG, PAG."""

from functools import partial

import pytest
import torch
from pack.guidance import (
    ALWAYS,
    Window,
    alternate,
    autoguidance,
    beta_cfg,
    cfg,
    cfgpp,
    interval,
    negative_instead,
    negative_weighted,
    ops,
    pag,
    perp_cfg,
    perp_neg,
    seg,
    skip_layers,
    skip_layers_in_uncond,
    tpg,
)
from pack.guidance.core import UNCOND, Perturbed, Prompt, State, Timeline, Weak, chain, guide
from pack.guidance.schedule import parse
from pack.guidance.space import EPS, FLOW, V

SPACES = {"eps": EPS, "v": V, "flow": FLOW}
SHAPES = [(2, 4, 40), (2, 4, 6, 5), (2, 4, 3, 4, 5)]
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["3-D", "4-D", "5-D"])
scales = pytest.mark.parametrize("w", [0.0, 1.0, 4.5, -2.0])


def grid(space):
    return (1.0, 0.8, 0.5, 0.2, 0.0) if space is FLOW else (14.6, 5.0, 1.5, 0.3, 0.0)


def moment(space=EPS, w=7.0, i=2, **more):
    line = Timeline(grid(space), space=space, percent=lambda s: 1 - s / grid(space)[0],
                    sigma_at=lambda p: (1 - p) * grid(space)[0], **more)
    return line.moment(grid(space)[i], w)


def answer(step, at, x, c, u, **branches):
    """What the chain makes of the host's CFG answer, in float64 throughout."""
    at = step.plan(at)
    found = {(Prompt(k) if k != "perturbed" else PERTURBED): value for k, value in branches.items()}
    u = found.get(at.uncond, u)
    found = {branch: value for branch, value in found.items() if branch in at.asked}
    return step.answer(State(at, x, c, u, u + at.scale * (c - u), found)).denoised


PERTURBED = Perturbed("identity", ("middle.0.0",))


def tensors(shape=(2, 4, 6, 5), n=3):
    return [torch.randn(shape, dtype=torch.float64) for _ in range(n)]


def same(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------------ CFG

@shapes
def test_cfg_is_linear_in_the_scale_between_uncond_and_cond(shape):
    x, c, u = tensors(shape)
    at = {w: answer(cfg(w), moment(), x, c, u) for w in (0.0, 1.0, 3.0, 5.0, 7.0)}
    same(at[0.0], u)
    same(at[1.0], c)
    same(at[5.0], (at[3.0] + at[7.0]) / 2)


@scales
def test_cfg_does_not_care_for_the_scale_where_cond_is_uncond(w):
    x, c, _ = tensors()
    same(answer(cfg(w), moment(), x, c, c), c)


@spaces
@scales
def test_cfg_is_the_same_in_every_space(space, w):
    x, c, u = tensors()
    sigma = grid(space)[2]
    a, b = space.output(x, c, sigma), space.output(x, u, sigma)
    same(answer(cfg(w), moment(space), x, c, u), space.denoised(x, b + w * (a - b), sigma))


@spaces
def test_spaces_convert_there_and_back(space):
    x, c, _ = tensors()
    for sigma in grid(space)[:-1]:
        same(space.denoised(x, space.output(x, c, sigma), sigma), c)


def test_at_scale_one_nobody_asks_for_uncond():
    assert cfg(1.0).plan(moment()).needs == frozenset()
    assert cfg(1.5).plan(moment()).needs == {UNCOND}


# ------------------------------------------------------------------------------------------------ interval

def test_the_upper_end_of_the_interval_is_inside_and_the_lower_is_not():
    step = interval(Window(5.0, 0.3, "sigma"))
    assert [step.plan(moment(i=i)).scale for i in range(4)] == [1.0, 7.0, 7.0, 1.0]


def test_sigmas_that_float32_rounds_upwards_are_still_inside():
    line = Timeline((1.0000002, 0.5, 0.0))  # what a shifted flow model's first sigma can be
    assert interval(ALWAYS).plan(line.moment(1.0000002, 7.0)).scale == 7.0


def test_an_interval_is_a_schedule_with_two_jumps():
    windowed = interval(Window(5.0, 0.3, "sigma"))
    schedule = cfg(parse("1000:1, 5:7, 0.3:1 step sigma"))
    for i in range(4):
        assert windowed.plan(moment(i=i)).scale == schedule.plan(moment(i=i)).scale


def test_rows_in_an_interval_are_steps_plus_steps_inside():
    line = Timeline(tuple(1 - i / 20 for i in range(21)))
    step = interval(Window(0.3, 0.7))
    assert sum(step.plan(m).rows for m in line.moments(7.0)) == 20 + 8


def test_an_empty_interval_is_cond_alone():
    assert all(interval(Window(2.0, 2.0, "sigma")).plan(moment(i=i)).needs == frozenset() for i in range(4))


# ------------------------------------------------------------------------------------------------ negatives

@scales
def test_a_plain_negative_stands_for_uncond(w):
    x, c, u, n = tensors(n=4)
    step = negative_instead("n")
    same(answer(step, moment(w=w), x, c, u, n=n), n + w * (c - n))
    same(answer(step, moment(w=w), x, c, u, n=c), c)
    same(answer(step, moment(w=w), x, c, u, n=u), u + w * (c - u))
    assert step.plan(moment(w=7.0)).rows == 2


def test_outside_its_window_a_negative_is_not_there():
    late = negative_instead("n", Window(0.5))
    assert late.plan(moment(i=0)).uncond == UNCOND
    assert late.plan(moment(i=2)).uncond == Prompt("n")


@pytest.mark.parametrize("make", [negative_weighted, perp_neg])
def test_weight_zero_and_a_closed_window_are_cfg_and_cost_nothing(make):
    x, c, u, n = tensors(n=4)
    for step in (make("n", 0.0), make("n", 1.0, Window(0.0, 0.1)), make("n", parse("0:1, 0.5:0"))):
        assert step.plan(moment()).rows == 2
        assert torch.equal(answer(step, moment(), x, c, u, n=n), u + 7.0 * (c - u))


@pytest.mark.parametrize("w", [2.0, 4.5, 7.0])
def test_a_weighted_negative_of_scale_minus_one_is_the_plain_negative_whatever_uncond_is(w):
    x, c, u, n = tensors(n=4)
    same(answer(negative_weighted("n", w - 1), moment(w=w), x, c, u, n=n), n + w * (c - n))


@shapes
def test_perp_neg_leaves_the_prompts_own_direction_alone(shape):
    x, c, e, n = tensors(shape, n=4)
    positive = c - e
    for w in (1.0, 3.0, 8.0):
        moved = answer(perp_neg("n", 1.5), moment(w=w), x, c, e, n=n) - e
        same(ops.dot(moved, positive), w * ops.dot(positive, positive))
        # The paper's formula, written out for one sample at a time.
        for i in range(len(c)):
            p, q = positive[i].flatten(), (n - e)[i].flatten()
            expected = w * (p - 1.5 * (q - (q @ p) / (p @ p) * p))
            same(moved[i].flatten(), expected)


def test_perp_neg_ignores_a_negative_that_says_what_the_prompt_says():
    x, c, e = tensors()
    plain = e + 7.0 * (c - e)
    same(answer(perp_neg("n"), moment(), x, c, e, n=e + 0.3 * (c - e)), plain)
    same(answer(perp_neg("n"), moment(), x, c, e, n=e), plain)


def test_several_perpendicular_negatives_add_up():
    x, c, e, n, m = tensors(n=5)
    both = answer(chain(perp_neg("n", 1.0), perp_neg("m", 0.5)), moment(), x, c, e, n=n, m=m)
    plain = e + 7.0 * (c - e)
    one = answer(perp_neg("n", 1.0), moment(), x, c, e, n=n)
    other = answer(perp_neg("m", 0.5), moment(), x, c, e, m=m)
    same(both - plain, (one - plain) + (other - plain))


def test_perp_neg_is_finite_where_the_prompt_is_the_empty_prompt():
    x, c, n = tensors()
    assert answer(perp_neg("n"), moment(), x, c, c, n=n).isfinite().all()


# ------------------------------------------------------------------------------------------------ CFG++

@pytest.mark.parametrize("space", [EPS, FLOW], ids=["eps", "flow"])
@pytest.mark.parametrize("strength", [0.0, 0.2, 0.6, 1.0, 1.5])
def test_an_euler_step_at_the_planned_scale_is_the_papers_step(space, strength):
    for i in range(4):
        x, c, u = tensors()
        at = moment(space, i=i)
        sigma, following, alpha = at.sigma, at.sigma_next, space.alpha
        denoised = answer(cfgpp(strength), at, x, c, u)
        euler = x + (x - denoised) / sigma * (following - sigma)
        mixed, noise = u + strength * (c - u), (x - alpha(sigma) * u) / sigma
        same(euler, alpha(following) * mixed + following * noise, 1e-11)


@pytest.mark.parametrize("space", [EPS, FLOW], ids=["eps", "flow"])
def test_the_last_cfgpp_step_has_the_strength_as_its_scale(space):
    assert cfgpp(0.6).plan(moment(space, i=3)).scale == pytest.approx(0.6, rel=1e-12)


@pytest.mark.parametrize("space", [EPS, FLOW], ids=["eps", "flow"])
def test_an_evaluation_between_two_steps_has_the_gain_of_the_step_it_belongs_to(space):
    """A sampler goes the whole step with what it finds on the way; dpm_2 was guided twice as much as euler."""
    line = moment(space).timeline
    for i in range(4):
        start, end = grid(space)[i:i + 2]
        for part in (0.3, 0.5, 0.99):
            between = line.moment(start + part * (end - start), 7.0)
            assert cfgpp(0.6).plan(between).scale == cfgpp(0.6).plan(moment(space, i=i)).scale


def test_the_strength_that_is_no_guidance_is_the_fraction_of_noise_removed():
    for i in range(4):
        at = moment(i=i)
        planned = cfgpp((at.sigma - at.sigma_next) / at.sigma).plan(at)
        assert planned.needs == frozenset()


def test_a_step_that_goes_nowhere_has_a_finite_scale():
    line = Timeline((5.0, 5.0, 0.0))
    assert cfgpp(0.6).plan(line.moment(5.0, 7.0)).scale == 0.6


# ------------------------------------------------------------------------------------------------ Perp-CFG

@shapes
@pytest.mark.parametrize("reference", ["uncond", "cond"])
@pytest.mark.parametrize("space", ["x0", "noise"])
def test_perp_cfg_with_everything_kept_is_cfg_and_at_scale_one_is_cond(shape, reference, space):
    x, c, u = tensors(shape)
    assert torch.equal(answer(perp_cfg(1.0, reference, space), moment(), x, c, u), u + 7.0 * (c - u))
    same(answer(perp_cfg(0.0, reference, space), moment(w=1.0), x, c, u), c)


@shapes
@pytest.mark.parametrize("w", [2.0, 7.0])
def test_perp_cfg_away_from_cond_in_x0_is_the_projection_of_apg(shape, w):
    x, c, u = tensors(shape)
    moved = answer(perp_cfg(0.0, "cond", "x0"), moment(w=w), x, c, u) - c
    same(ops.dot(moved, c), torch.zeros_like(ops.dot(c, c)), 1e-9)
    for i in range(len(c)):  # the published formula, one sample at a time
        d, e = (c - u)[i].flatten(), c[i].flatten()
        same(moved[i].flatten(), (w - 1) * (d - (d @ e) / (e @ e) * e))


@shapes
@pytest.mark.parametrize("w", [0.0, 2.0, 7.0])
def test_perp_cfg_away_from_uncond_in_noise_is_the_optimised_scale_of_cfg_zero_star(shape, w):
    x, c, u = tensors(shape)
    at = moment(FLOW, w=w)
    guided = FLOW.output(x, answer(perp_cfg(0.0, "uncond", "noise"), at, x, c, u), at.sigma)
    v_c, v_u = FLOW.output(x, c, at.sigma), FLOW.output(x, u, at.sigma)
    best = ops.dot(v_c, v_u) / ops.dot(v_u, v_u)
    same(guided, best * v_u + w * (v_c - best * v_u), 1e-11)


def test_parallel_velocities_leave_the_conditional_one_at_every_scale():
    x, u = tensors(n=2)
    at = moment(FLOW)
    c = x - 1.7 * (x - u)
    for w in (0.0, 3.0, 9.0):
        same(answer(perp_cfg(0.0, "uncond", "noise"), moment(FLOW, w=w), x, c, u), c, 1e-11)
    assert at.scale == 7.0


@pytest.mark.parametrize("w", [1.0, 4.0])
def test_the_literal_form_starts_from_uncond(w):
    x, c, u = tensors()
    orthogonal = (c - u) - ops.dot(c - u, u) / ops.dot(u, u) * u
    same(answer(perp_cfg(0.0, literal=True), moment(w=w), x, c, u), u + w * orthogonal)
    assert perp_cfg(0.0, literal=True).plan(moment(w=1.0)).needs == {UNCOND}


# ------------------------------------------------------------------------------------------------ PAG

@shapes
def test_pag_adds_what_the_perturbed_model_lacks(shape):
    x, c, u, p = tensors(shape, n=4)
    step = pag(["middle.0.0"], 3.0)
    plain = u + 7.0 * (c - u)
    same(answer(step, moment(), x, c, u, perturbed=p), plain + 3.0 * (c - p))
    same(answer(step, moment(), x, c, u, perturbed=c), plain)


def test_pag_of_scale_zero_asks_for_nothing():
    x, c, u, p = tensors(n=4)
    step = pag(["middle.0.0"], parse("0:0, 1:0"))
    assert step.plan(moment()).rows == 2
    assert torch.equal(answer(step, moment(), x, c, u, perturbed=p), u + 7.0 * (c - u))


@shapes
def test_a_full_rescale_brings_back_conds_deviation(shape):
    x, c, u, p = tensors(shape, n=4)
    step = pag(["middle.0.0"], 3.0, rescale=1.0)
    same(ops.std(answer(step, moment(), x, c, u, perturbed=p)), ops.std(c), 1e-11)


@shapes
@pytest.mark.parametrize("make, kind, amount", [
    (seg, "blur", 1000.0), (partial(seg, sigma=2.5), "blur", 2.5), (skip_layers, "skip", 0.0),
    (partial(skip_layers, what="attention"), "identity", 0.0), (tpg, "shuffle", 1.0), (partial(tpg, share=0.4), "shuffle", 0.4),
])
def test_each_perturbation_is_led_away_from_as_pag_is(make, kind, amount, shape):
    x, c, u, p = tensors(shape, n=4)
    step = make(["middle.0.0"], scale=1.5)
    (branch,) = step.plan(moment()).asked
    assert (branch.kind, branch.layers, branch.amount) == (kind, ("middle.0.0",), amount)
    state = State(step.plan(moment()), x, c, u, u + 7.0 * (c - u), {branch: p})
    same(step.answer(state).denoised, u + 7.0 * (c - u) + 1.5 * (c - p))
    assert step.plan(moment(w=1.0)).rows == 2


def test_a_perturbation_of_nothing_asks_for_nothing():
    for step in (seg(["a"], sigma=0.0), seg(["a"], sigma=parse("0:0, 1:0")), tpg(["a"], share=0.0), skip_layers(["a"], scale=0.0),
                 skip_layers(["a"], window=Window(0.9, 1.0)), seg(["a"], window=Window(0.9, 1.0))):
        assert step.plan(moment()).rows == 2


def test_tokens_are_shuffled_anew_at_every_step_and_alike_in_every_run():
    first, second = (next(iter(tpg(["a"], seed=3).plan(moment(i=i)).asked)) for i in (0, 1))
    assert first.seed != second.seed
    assert first == next(iter(tpg(["a"], seed=3).plan(moment(i=0)).asked)) != next(iter(tpg(["a"], seed=4).plan(moment(i=0)).asked))


def test_layers_skipped_in_uncond_are_no_further_prediction():
    planned = skip_layers_in_uncond(["a"], window=Window(0.5, 1.0)).plan(moment())
    assert planned.weakened == Perturbed("skip", ("a",))
    assert planned.rows == 2
    assert skip_layers_in_uncond(["a"], window=Window(0.9, 1.0)).plan(moment()).weakened is None


# ------------------------------------------------------------------------------------------------ the chain

def test_a_chain_is_doing_one_after_the_other():
    x, c, u, p = tensors(n=4)
    steps = [perp_cfg(0.2), pag(["middle.0.0"], 2.0, 0.5), cfg(4.0)]
    at = chain(*steps).plan(moment())
    assert at.scale == 4.0 and at.rows == 3
    state = State(at, x, c, u, u + 4.0 * (c - u), {PERTURBED: p})
    for step in steps:
        state = step.apply(state)
    assert torch.equal(answer(chain(*steps), moment(), x, c, u, perturbed=p), state.denoised)


@pytest.mark.parametrize("order", [1, -1])
def test_a_scale_is_set_before_it_is_limited_in_either_order(order):
    line = Timeline(tuple(10 * (1 - i / 20) for i in range(21)), percent=lambda s: 1 - s / 10,
                    sigma_at=lambda p: 10 * (1 - p))

    def planned(*steps, scale=7.0):
        step = chain(*steps[::order])
        return [step.plan(at) for at in line.moments(scale)]

    rows = [at.rows for at in planned(interval(Window(0.3, 0.6)), cfgpp())]
    assert sum(rows) == 26 and rows[6:12] == [2] * 6
    curve = [at.scale for at in planned(beta_cfg(), scale=7.5)]
    assert [at.scale for at in planned(beta_cfg(), cfg(7.5), scale=3.0)] == curve and len(set(curve)) > 10
    assert all(at.needs == {Weak("weak")} for at in planned(autoguidance("weak"), cfg(2.5), scale=1.0))
    assert [at.scale for at in planned(alternate(), cfg(4.0))] == [4.0, 1.0] * 10
    assert [at.scale for at in planned(cfg(1.0), cfg(4.0))][0] == (4.0 if order == 1 else 1.0)  # of two the last


def test_direction_edits_and_added_terms_do_not_depend_on_their_order():
    x, c, u, p = tensors(n=4)
    one, other = perp_cfg(0.2), pag(["middle.0.0"], 2.0)
    same(answer(chain(one, other), moment(), x, c, u, perturbed=p), answer(chain(other, one), moment(), x, c, u, perturbed=p))


def test_an_empty_chain_hands_back_the_hosts_answer():
    x, c, u = (tensor.half() for tensor in tensors())
    assert torch.equal(guide(chain(), moment(), x, c, u, c), c)


# ------------------------------------------------------------------------------------------------ where a run is

def test_an_evaluation_belongs_to_the_step_of_its_sigma():
    line = Timeline((10.0, 4.0, 1.0, 0.0))
    assert [line.locate(s) for s in (10.0, 4.0, 1.0)] == [0.0, 1.0, 2.0]
    assert line.locate(10.0 * (1 + 5e-4)) == 0.0 and line.locate(4.0 * (1 - 5e-4)) == 1.0  # float noise, offsets
    assert line.locate(7.0) == 0.5 and line.locate(2.5) == 1.5 and line.locate(0.5) == 2.5  # midpoints
    assert line.locate(12.0) == 0.0
    assert line.moment(2.5, 1.0).sigma_next == 1.0


def test_a_run_that_adds_noise_is_read_in_its_own_direction():
    line = Timeline((0.1, 1.0, 4.0))
    assert [line.locate(s) for s in (0.1, 1.0)] == [0.0, 1.0]
    assert line.locate(2.5) == 1.5
    assert line.moment(0.1, 1.0).sigma_next == 1.0


def test_a_run_of_one_step_and_a_repeated_sigma():
    assert Timeline((1.0, 0.0)).locate(1.0) == 0.0
    assert Timeline((4.0, 4.0, 0.0)).locate(4.0) == 0.0
