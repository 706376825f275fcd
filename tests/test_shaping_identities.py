"""Thresholds, projections, rescaling, frequencies and scales against their papers, written out again in float64."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pack.guidance import (
    apg,
    auto_range,
    beta_cfg,
    cfg_zero_star,
    chain,
    dynamic_threshold,
    fdg,
    fresca,
    mambo_g,
    mimic,
    momentum_guidance,
    ops,
    perp_cfg,
    power_law,
    renorm,
    rescale,
    skimmed_cfg,
    smc_cfg,
    tcfg,
)
from pack.guidance.core import State, Step, Timeline
from pack.guidance.interval import Window
from pack.guidance.schedule import parse
from pack.guidance.space import EPS, FLOW, V

SPACES = {"eps": EPS, "v": V, "flow": FLOW}
SHAPES = [(3, 4, 50), (3, 4, 9, 8), (3, 4, 3, 6, 7)]
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["3-D", "4-D", "5-D"])
W = 7.5


class Run:
    """The evaluations of one run by one step: predictions near each other, as a model's are, and plain CFG of them."""

    def __init__(self, step, space=EPS, w=W, shape=(3, 4, 12, 10), dtype=torch.float64, sigmas=None):
        sigmas = sigmas or ((1.0, 0.8, 0.5, 0.2, 0.0) if space is FLOW else (14.6, 5.0, 1.5, 0.3, 0.0))
        self.step, self.w, self.shape, self.dtype = step, w, shape, dtype
        self.line = Timeline(sigmas, space=space)

    def at(self, i, x=None, c=None, u=None):
        """The state that the chain gets at step i."""
        moment = self.step.plan(self.line.moment(self.line.sigmas[i], self.w))
        generator = torch.Generator().manual_seed(i)
        c0, e, d = (torch.randn(self.shape, generator=generator, dtype=torch.float64).to(self.dtype) for _ in range(3))
        c = c0 if c is None else c
        u = c - 0.3 * d - 0.1 * c0 if u is None else u
        x = moment.space.alpha(moment.sigma) * c + moment.sigma * e if x is None else x
        u_or_c = c if moment.combined == 1 else u
        return State(moment, x, c, u_or_c, u_or_c + moment.combined * (c - u_or_c))

    def __call__(self, i=2, **given):
        self.state = self.at(i, **given)
        return self.step.apply(self.state).denoised


def same(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def inner(a, b):
    return (a * b).flatten(1).sum(1)


def length(a):
    return inner(a, a).sqrt()


def wide(values, like):
    return values.view(-1, *[1] * (like.ndim - 1))


# ------------------------------------------------------------------- the papers again, in float64, sample by sample
# Each takes the states of a run in order and returns the last answer.

def per_sample(formula):
    """From a formula of one sample's tensors (without batch) to one of states."""
    def whole(states):
        return torch.stack([
            formula([(s.moment, s.x[b], s.cond[b], s.uncond[b], s.denoised[b]) for s in states])
            for b in range(len(states[0].x))
        ])
    return whole


def to_output(moment, x, *predictions):
    return [moment.space.output(x, prediction, moment.sigma) for prediction in predictions]


def imagen(run):
    _, x, c, u, D = run[-1]
    s = max(torch.quantile(D.abs(), 0.995).item(), 1.0)
    return D.clamp(-s, s) / s


def imagen_relative(run):
    _, x, c, u, D = run[-1]
    usual, size = (torch.quantile(t.abs(), 0.995).item() for t in (c, D))
    return D if size <= usual else D.clamp(-size, size) * usual / size


def mcmonkey(run, m=4.0, percentile=1.0, separate=True, start="mean", measure="range", phi=1.0):
    moment, x, c, u, D = run[-1]
    M = u + m * (c - u)
    M, D = M.flatten(1), D.flatten(1)
    M, centre = M - M.mean(1, keepdim=True), D.mean(1, keepdim=True)
    C = D - centre
    dims = 1 if separate else (0, 1)
    if measure == "std":
        ref_m, ref_c = (t.pow(2).mean(dims, keepdim=True).sqrt() for t in (M, C))
        out = C / ref_c * ref_m + centre
    else:
        ref_m = M.abs().amax(dims, keepdim=True)
        q = [torch.quantile(row, percentile) for row in (C.abs() if separate else C.abs().reshape(1, -1))]
        ref_c = torch.stack(q).view(-1, 1)
        top = torch.maximum(ref_m, ref_c)
        out = torch.minimum(torch.maximum(C, -top), top) / top * ref_m + centre
    if start == "zero":
        out = D * (ref_m / ref_c)
    return (phi * out + (1 - phi) * D).view_as(c)


def sadat_apg(run, eta=0.0, r=0.9, beta=-0.5):
    m = 0
    for moment, x, c, u, D in run:
        m = (c - u) + beta * m
    g = m * min(1.0, r / m.norm().item())
    unit = c / c.norm()
    parallel = (g * unit).sum() * unit
    return c + (moment.scale - 1) * ((g - parallel) + eta * parallel)


def fan_zero_star(run):
    moment, x, c, u, D = run[-1]
    v_c, v_u = (x - c) / moment.sigma, (x - u) / moment.sigma
    s = (v_c * v_u).sum() / (v_u * v_u).sum()
    return x - moment.sigma * (s * v_u + moment.scale * (v_c - s * v_u))


def kwon_tcfg(run):
    moment, x, c, u, D = run[-1]
    e_c, e_u = (x - c).flatten(), (x - u).flatten()
    v1 = torch.linalg.svd(torch.stack([e_u, e_c]), full_matrices=False).Vh[0]
    damped = x - ((e_u @ v1) * v1).view_as(x)
    return damped + moment.scale * (c - damped)


def lin_rescale(run, phi=0.7):
    moment, x, c, u, D = run[-1]
    y, y_c = to_output(moment, x, D, c)
    y = phi * y * y_c.std() / y.std() + (1 - phi) * y
    return moment.space.denoised(x, y, moment.sigma)


def qwen_renorm(run):
    """Latents packed into tokens of 2 x 2, as its pipeline has them."""
    moment, x, c, u, D = run[-1]
    C, H, Wd = x.shape

    def pack(t):
        return t.view(C, H // 2, 2, Wd // 2, 2).permute(1, 3, 0, 2, 4).reshape(-1, C * 4)

    y, y_c = (pack(t) for t in to_output(moment, x, D, c))
    y = y * (y_c.norm(dim=-1, keepdim=True) / y.norm(dim=-1, keepdim=True))
    y = y.view(H // 2, Wd // 2, C, 2, 2).permute(2, 0, 3, 1, 4).reshape(C, H, Wd)
    return moment.space.denoised(x, y, moment.sigma)


def z_image_renorm(run, limit=1.1):
    moment, x, c, u, D = run[-1]
    y, y_c = to_output(moment, x, D, c)
    if y.norm() > limit * y_c.norm():
        y = y * (limit * y_c.norm() / y.norm())
    return moment.space.denoised(x, y, moment.sigma)


def cfg_norm(run):
    """ComfyUI's CFGNorm."""
    moment, x, c, u, D = run[-1]
    return D * (c.norm(dim=0, keepdim=True) / D.norm(dim=0, keepdim=True)).clamp(max=1)


def sadat_fdg(run, low=0.44, high=1.2):
    """Pyramids of both predictions, a scale per level, as kornia builds and collapses them."""
    moment, x, c, u, D = run[-1]
    line = torch.tensor([1.0, 4, 6, 4, 1], dtype=x.dtype)
    kernel = (line[:, None] * line / 256)[None, None]

    def soft(t):
        return F.conv2d(F.pad(t[:, None], (2, 2, 2, 2), mode="reflect"), kernel)[:, 0]

    def resized(t, size):
        return F.interpolate(t[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    def down(t):
        return resized(soft(t), (t.shape[-2] // 2, t.shape[-1] // 2))

    def up(t):
        return soft(resized(t, x.shape[-2:]))

    w_low, w_high = (1 + s * (moment.scale - 1) for s in (low, high))
    coarse_c, coarse_u = down(c), down(u)
    fine_c, fine_u = c - up(coarse_c), u - up(coarse_u)
    coarse, fine = coarse_u + w_low * (coarse_c - coarse_u), fine_u + w_high * (fine_c - fine_u)
    return up(coarse) + fine


def huang_fresca(run, low=0.8, high=1.5, cutoff=0.3):
    moment, x, c, u, D = run[-1]
    spectrum = np.fft.fftshift(np.fft.fft2((c - u).numpy()), axes=(-2, -1))
    H, Wd = x.shape[-2:]
    rows, columns = (abs(np.arange(n) - n // 2) / (n / 2) < cutoff for n in (H, Wd))
    factor = np.where(rows[:, None] & columns[None], low, high)
    filtered = np.fft.ifft2(np.fft.ifftshift(spectrum * factor, axes=(-2, -1)))
    assert abs(filtered.imag).max() < 1e-12
    return u + moment.scale * torch.from_numpy(filtered.real.copy())


def zhu_mambo(run, alpha=8.0):
    moment, x, c, u, D = run[-1]
    y_c, y_u = to_output(moment, x, c, u)
    w = 1 + (moment.scale - 1) * math.exp(-alpha * ((y_c - y_u).norm() / y_u.norm()).item())
    return moment.space.denoised(x, y_u + w * (y_c - y_u), moment.sigma)


def pavasovic_power(run, alpha=0.9, reference=0.1):
    moment, x, c, u, D = run[-1]
    y_c, y_u = to_output(moment, x, c, u)
    size = (y_c - y_u).norm().item() / math.sqrt(x.numel()) / reference
    return moment.space.denoised(x, y_c + (moment.scale - 1) * (y_c - y_u) * size**alpha, moment.sigma)


def malarz_beta(run, a=2.0, b=3.0, gamma=1.0, w=W):
    """The authors' formula, whose norm is that of a 4 x 64 x 64 latent."""
    moment, x, c, u, D = run[-1]
    t = moment.step / (len(moment.timeline.sigmas) - 2)
    pdf = t ** (a - 1) * (1 - t) ** (b - 1) * math.gamma(a + b) / math.gamma(a) / math.gamma(b)
    y_c, y_u = to_output(moment, x, c, u)
    norm = (y_c - y_u).norm() * math.sqrt(4 * 64 * 64 / x.numel())
    return moment.space.denoised(x, y_u + w * pdf * (y_c - y_u) / norm**gamma, moment.sigma)


def automatic_cfg(run, w_ref=8.0):
    moment, x, c, u, D = run[-1]
    out = torch.empty_like(u)
    for k in range(len(u)):
        values = (u[k] + w_ref * (c[k] - u[k])).flatten()
        quarter = int(len(values) * 0.25)
        top = values.topk(quarter).values.mean()
        bottom = values.topk(quarter, largest=False).values.abs().mean()
        out[k] = u[k] + w_ref * (moment.scale / 10) / ((top + bottom) / 2) * (c[k] - u[k])
    return out


def skimmed(run, skim=4.0, full_negative=False, flips=True):
    moment, x, c, u, D = run[-1]
    w = moment.scale

    def skim_one(near, far, s):
        """The prediction `near` with those values replaced that bring the answer at w to the one at s."""
        y, y_s = far + w * (near - far), far + s * (near - far)
        out = near.clone()
        for i in np.ndindex(*near.shape):
            lean = torch.sign(near[i] - far[i])
            driven = lean == torch.sign(near[i]) and torch.sign(near[i]) == torch.sign(near[i] * w - far[i] * (w - 1))
            if driven and (not flips or torch.sign(y[i]) == torch.sign(y[i] - x[i])):
                out[i] = near[i] - (y[i] - y_s[i]) / w
        return out

    u = skim_one(u, c, 0.0 if full_negative else skim)
    c = skim_one(c, u, skim)
    return u + w * (c - u)


def liao_momentum(run, alpha=0.5, beta=0.6):
    average = None
    for moment, x, c, u, D in run:
        v = (x - D) / moment.sigma
        average = v if average is None else average
        guided = v + alpha * (v - average)
        average = (1 - beta) * v + beta * average
    return x - moment.sigma * guided


def wang_smc(run, K=0.2, lam=5.0):
    before = None
    for moment, x, c, u, D in run:
        v_c, v_u = (x - c) / moment.sigma, (x - u) / moment.sigma
        e = v_c - v_u
        before = e if before is None else before
        s = (e - before) + lam * before
        before = e = e - K * s.sign()
    return x - moment.sigma * (v_u + moment.scale * e)


PAPERS = {
    "dynamic threshold, pixels": (partial(dynamic_threshold, form="pixels"), imagen),
    "dynamic threshold, latents": (dynamic_threshold, imagen_relative),
    "mimic": (partial(mimic, 4.0), mcmonkey),
    "mimic, percentile": (partial(mimic, 4.0, 0.9), partial(mcmonkey, percentile=0.9)),
    "mimic, whole": (partial(mimic, 4.0, 0.9, per_channel=False), partial(mcmonkey, percentile=0.9, separate=False)),
    "mimic, std": (partial(mimic, 4.0, measure="std"), partial(mcmonkey, measure="std")),
    "mimic, zero": (partial(mimic, 4.0, start="zero", strength=0.7), partial(mcmonkey, start="zero", phi=0.7)),
    "APG": (partial(apg, threshold=0.9, unit="norm"), sadat_apg),
    "APG, eta": (partial(apg, 0.3, 0.9, "norm", -0.75), partial(sadat_apg, eta=0.3, beta=-0.75)),
    "CFG-Zero*": (cfg_zero_star, fan_zero_star),
    "TCFG": (tcfg, kwon_tcfg),
    "rescale": (rescale, lin_rescale),
    "renorm, tokens": (renorm, qwen_renorm),
    "renorm, pixels": (partial(renorm, over="pixels", limit=1.0, space="x0"), cfg_norm),
    "renorm, sample": (partial(renorm, over="sample", limit=1.1), z_image_renorm),
    "FDG": (partial(fdg, high=1.2), sadat_fdg),
    "FreSca": (partial(fresca, 0.8), huang_fresca),
    "MAMBO-G": (mambo_g, zhu_mambo),
    "power law": (power_law, pavasovic_power),
    "beta-CFG": (beta_cfg, malarz_beta),
    "beta-CFG, gamma": (partial(beta_cfg, 3.0, 2.0, 0.4), partial(malarz_beta, a=3.0, b=2.0, gamma=0.4)),
    "auto range": (auto_range, automatic_cfg),
    "skimmed CFG": (partial(skimmed_cfg, 4.0), skimmed),
    "skimmed CFG, full": (partial(skimmed_cfg, 4.0, True, False), partial(skimmed, full_negative=True, flips=False)),
    "momentum guidance": (momentum_guidance, liao_momentum),
    "SMC": (smc_cfg, wang_smc),
    "SMC, code": (partial(smc_cfg, 0.3, 0.05), partial(wang_smc, K=0.3, lam=0.05)),
}
papers = pytest.mark.parametrize("name", PAPERS)


def last_of_three(make, space, dtype):
    """The answer at the third step, and the states that led to it, in float64."""
    run, states = Run(make(), space, dtype=dtype), []
    for i in range(3):
        answer = run(i)
        x, c, u = (t.double() for t in (run.state.x, run.state.cond, run.state.uncond))
        states.append(State(run.state.moment, x, c, u, u + run.state.scale * (c - u)))
    return answer, states


@papers
@spaces
def test_the_paper_in_float64(name, space):
    make, paper = PAPERS[name]
    answer, states = last_of_three(make, space, torch.float64)
    same(answer, per_sample(paper)(states))


@papers
@spaces
def test_the_float32_path_is_as_exact_as_float32(name, space):
    make, paper = PAPERS[name]
    answer, states = last_of_three(make, space, torch.float32)
    exact = per_sample(paper)(states)
    error = (answer - exact).abs().max() / max(t.abs().max() for t in (states[-1].x, states[-1].denoised, exact))
    print(f"{name}: {error:.1e}")
    assert answer.dtype == torch.float32 and error < 3e-7  # 5 roundings of the largest value around


# ------------------------------------------------------------------------------------------------ all of them

NEUTRAL = {
    "dynamic threshold": partial(dynamic_threshold, strength=0.0),
    "mimic, off": partial(mimic, strength=0.0),
    "mimic at the scale": partial(mimic, W),
    "mimic at the scale, zero": partial(mimic, W, 0.9, start="zero"),
    "APG": partial(apg, eta=1.0, threshold=0.0, momentum=0.0),
    "CFG-Zero*": partial(cfg_zero_star, strength=0.0, zero_steps=0),
    "TCFG": partial(tcfg, strength=0.0),
    "rescale": partial(rescale, strength=0.0),
    "renorm": partial(renorm, strength=0.0),
    "FDG": partial(fdg, 1.0, 1.0),
    "FreSca": partial(fresca, 1.0, 1.0),
    "MAMBO-G": partial(mambo_g, 0.0),
    "power law": partial(power_law, 0.0),
    "beta-CFG": partial(beta_cfg, 1.0, 1.0, 0.0),
    "auto range": partial(auto_range, strength=0.0),
    "skimmed CFG": partial(skimmed_cfg, W),
    "momentum guidance": partial(momentum_guidance, 0.0),
    "SMC": partial(smc_cfg, 0.0),
    "SMC, closed": partial(smc_cfg, window=Window(0.0, 0.0)),
}
# Steps that work on guidance: without it, at scale 1 or where cond is uncond, they give cond.
STEERING = ["mimic", "mimic, percentile", "mimic, whole", "mimic, std", "mimic, zero", "APG", "APG, eta", "CFG-Zero*",
            "TCFG", "FDG", "FreSca", "MAMBO-G", "power law", "beta-CFG", "beta-CFG, gamma", "auto range", "skimmed CFG",
            "skimmed CFG, full", "rescale", "renorm, tokens", "renorm, pixels", "renorm, sample",
            "dynamic threshold, latents", "SMC", "SMC, code"]


@pytest.mark.parametrize("name", NEUTRAL)
@shapes
def test_neutral_knobs_hand_back_the_state_itself(name, shape):
    run = Run(NEUTRAL[name](), shape=shape)
    for i in range(3):
        state = run.at(i)
        assert run.step.apply(state) is state and state.moment == run.line.moment(state.moment.sigma, W)


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scale_1_is_cond_bit_for_bit(name, dtype):
    run = Run(PAPERS[name][0](), FLOW, w=1.0, dtype=dtype)
    for i in (1, 2, 3):
        assert torch.equal(run(i), run.state.cond)


@pytest.mark.parametrize("name", STEERING)
@shapes
def test_where_cond_is_uncond_the_answer_is_both(name, shape):
    run = Run(PAPERS[name][0](), FLOW, shape=shape)
    for i in (1, 2, 3):
        c = run.at(i).cond
        same(run(i, c=c, u=c), c)


@papers
@shapes
def test_a_batch_is_its_samples(name, shape):
    make = PAPERS[name][0]
    whole, singles = Run(make(), shape=shape), [Run(make(), shape=shape) for _ in range(shape[0])]
    for i in (1, 2, 3):
        answer, s = whole(i), whole.state
        for b, single in enumerate(singles):
            same(single(i, x=s.x[b:b + 1], c=s.cond[b:b + 1], u=s.uncond[b:b + 1]), answer[b:b + 1])


# ------------------------------------------------------------------------------------------------ thresholds

def test_imagen_leaves_pixels_in_range_alone_and_brings_the_others_there():
    threshold = Run(dynamic_threshold(form="pixels"))
    c = torch.rand(3, 4, 12, 10, dtype=torch.float64) * 0.2
    assert torch.equal(threshold(c=c, u=0.9 * c), threshold.state.denoised)
    assert threshold().abs().max() == 1


def test_imagen_with_the_whole_range_is_division_by_the_largest():
    threshold = Run(dynamic_threshold(1.0, "pixels"))
    answer, D = threshold(), threshold.state.denoised
    same(answer, D / D.flatten(1).abs().amax(1).view(-1, 1, 1, 1))


def test_thresholds_do_not_care_where_a_pixel_is():
    order = torch.randperm(120)
    for form in ("pixels", "latents"):
        threshold = Run(dynamic_threshold(form=form))
        answer, s = threshold(), threshold.state
        x, c, u = (t.flatten(2)[:, :, order].view_as(t) for t in (s.x, s.cond, s.uncond))
        assert torch.equal(threshold(x=x, c=c, u=u), answer.flatten(2)[:, :, order].view_as(answer))


def test_latents_end_with_conds_percentile():
    threshold = Run(dynamic_threshold(0.9))
    answer = threshold()
    same(answer.flatten(1).abs().amax(1), threshold.state.cond.flatten(1).abs().quantile(0.9, dim=1))


@pytest.mark.parametrize("measure", ["range", "std"])
@pytest.mark.parametrize("start", ["mean", "zero"])
def test_mimic_goes_over_into_cfg_where_its_scale_does(measure, start):
    run = Run(mimic(W * (1 + 1e-9), measure=measure, start=start))
    same(run(), run.state.denoised, 1e-7)


def test_mimic_has_the_range_or_the_deviation_of_the_smaller_scale():
    for measure, size in (("range", lambda t: t.abs().amax(-1)), ("std", lambda t: t.std(-1))):
        run = Run(mimic(3.0, measure=measure))
        answer, s = run().flatten(2), run.state
        calm = (s.uncond + 3 * (s.cond - s.uncond)).flatten(2)
        same(answer.mean(-1), s.denoised.flatten(2).mean(-1))
        same(size(answer - answer.mean(-1, keepdim=True)), size(calm - calm.mean(-1, keepdim=True)))


# ------------------------------------------------------------------------------------------------ projections

@shapes
def test_apg_is_orthogonal_to_cond_and_within_its_threshold(shape):
    run = Run(apg(threshold=0.05), shape=shape)
    for i in range(3):
        moved = run(i) - run.state.cond
        n = run.state.cond[0].numel()
        assert (inner(moved, run.state.cond).abs() < 1e-12 * length(moved) * length(run.state.cond)).all()
        assert (length(moved) <= (W - 1) * 0.05 * n**0.5).all()


def test_apg_scales_with_its_predictions():
    one, ten = Run(apg(threshold=0.9, unit="norm")), Run(apg(threshold=9.0, unit="norm"))
    for i in range(3):
        answer, s = one(i), one.state
        same(ten(i, x=10 * s.x, c=10 * s.cond, u=10 * s.uncond), 10 * answer)


def test_apg_brakes_once_per_step_and_forgets_on_a_jump():
    once, twice, jump = (Run(apg(1.0, 0.0, momentum=-0.5), sigmas=(8.0, 4.0, 2.0, 1.0, 0.5, 0.0)) for _ in range(3))
    for i in (0, 1, 2):
        answer = once(i)
        assert i == 0 or not torch.equal(answer, once.state.denoised)
        for _ in range(2):  # as heun does: the end of one step and the start of the next are one sigma
            assert torch.equal(twice(i), answer)
    jump(0)
    jump(1)
    jump.w = 1.0
    jump(2)  # without guidance
    jump.w = W
    assert torch.equal(jump(3), jump.state.denoised)
    same(jump(4), jump.state.denoised - 0.5 * (W - 1) * direction(jump.at(3)))
    assert torch.equal(jump(0), jump.state.denoised)  # the sampler went back up


@pytest.mark.parametrize("make", [apg, momentum_guidance])
def test_a_memory_outlives_looking_ahead_and_steps_that_the_sampler_leaves_out(make):
    """heunpp2 looks two steps ahead and comes back; dpm_fast goes its own way between the run's steps."""
    sigmas = tuple(float(2 ** (5 - i)) for i in range(9)) + (0.0,)
    for visits, fresh in (([0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5], 1), ([0, 2, 3, 5, 6, 8], 1)):
        run = Run(make(), sigmas=sigmas)
        steps = [run.step.apply(run.at(i)) for i in visits]
        alone = [(other := Run(make(), sigmas=sigmas)).step.apply(other.at(i)) for i in visits]
        assert sum(torch.equal(a.denoised, b.denoised) for a, b in zip(steps, alone)) == fresh


def direction(state):
    return state.cond - state.uncond


def test_zero_star_is_the_projection_that_perp_cfg_has():
    for space in SPACES.values():
        same(Run(cfg_zero_star(), space)(), Run(perp_cfg(0.0, "uncond", "noise"), space)())


def test_zero_star_is_cfg_where_the_best_multiple_is_1_and_cond_where_they_are_parallel():
    run = Run(cfg_zero_star(), FLOW)
    s = run.at(2)
    u, v_u = s.uncond, s.x - s.uncond
    orthogonal = direction(s) - wide(inner(direction(s), v_u) / inner(v_u, v_u), v_u) * v_u
    same(run(x=s.x, c=u + orthogonal, u=u), u + W * orthogonal)
    parallel = s.x - 0.7 * v_u
    same(run(x=s.x, c=parallel, u=u), parallel)
    guided = run(x=s.x, c=s.cond, u=u)
    multiple = wide(inner(s.x - s.cond, v_u) / inner(v_u, v_u), v_u)
    assert (inner(guided - s.x + multiple * v_u, v_u).abs() < 1e-10 * length(v_u) ** 2).all()


def test_zero_init_leaves_x_as_it_is_for_its_steps_and_asks_for_no_uncond():
    run = Run(cfg_zero_star(zero_steps=2), FLOW)
    for i in (0, 1):
        assert torch.equal(run(i), run.state.x) and not run.state.moment.needs
        x, sigma, after = run.state.x, *run.line.sigmas[i:i + 2]
        assert torch.equal(x + (x - run(i)) / sigma * (after - sigma), x)
    assert not torch.equal(run(2), run.state.x) and run.state.moment.rows == 2
    assert not torch.equal(run.step.apply(run.at(1)).denoised, Run(cfg_zero_star(zero_steps=0), FLOW)(1))
    for space in (EPS, V):  # which have no such velocity
        assert torch.equal(Run(cfg_zero_star(zero_steps=2), space)(0), Run(cfg_zero_star(zero_steps=0), space)(0))


def test_a_run_that_starts_from_a_picture_does_not_stand_still_and_fade_it():
    """At denoise 0.6 x holds 40 % of the picture, and standing still for a step would sell it as more."""
    half = Run(cfg_zero_star(zero_steps=2), FLOW, sigmas=(0.6, 0.4, 0.2, 0.0))
    assert all(half.at(i).moment.rows == 2 and torch.equal(half(i), Run(cfg_zero_star(), FLOW, sigmas=half.line.sigmas)(i))
               for i in (0, 1))


def test_tcfg_keeps_parallel_predictions_and_never_lengthens_uncond():
    run = Run(tcfg())
    s = run.at(2)
    for k in (0.3, 1.0, -2.0):
        u = s.x - k * (s.x - s.cond)
        same(run(x=s.x, c=s.cond, u=u), u + W * (s.cond - u), 1e-11)
    for other in (s.uncond, -s.uncond, s.x + s.cond, torch.randn_like(s.x)):
        state = run.step.apply(run.at(2, x=s.x, c=s.cond, u=other))
        damped = s.x - (state.cond - state.direction)
        assert (length(damped) <= length(s.x - other) * (1 + 1e-12)).all()
    ten = run(x=10 * s.x, c=10 * s.cond, u=10 * s.uncond)
    same(ten, 10 * run(x=s.x, c=s.cond, u=s.uncond))


def test_tcfg_of_equally_long_orthogonal_predictions_is_cfg():
    """Every direction is then a singular vector, and the answer is the one that changes nothing."""
    run = Run(tcfg(), shape=(1, 2, 1, 1))
    x, c, u = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).view(3, 1, 2, 1, 1)
    assert torch.equal(run(x=x, c=c, u=u), u + W * (c - u))


# ------------------------------------------------------------------------------------------------ rescale and norms

@spaces
@shapes
def test_a_full_rescale_has_conds_deviation(space, shape):
    run = Run(rescale(1.0), space, shape=shape)
    for i in (1, 2):
        y, y_c = to_output(run.at(i).moment, run.at(i).x, run(i), run.at(i).cond)
        same(y.flatten(1).std(1), y_c.flatten(1).std(1))
    run = Run(rescale(1.0, "x0"), space, shape=shape)
    same(run().flatten(1).std(1), run.state.cond.flatten(1).std(1))


@spaces
def test_rescale_and_renorm_scale_with_their_predictions(space):
    for make in (rescale, renorm):
        run = Run(make(), space)
        answer, s = run(), run.state
        same(run(x=10 * s.x, c=10 * s.cond, u=10 * s.uncond), 10 * answer)


@spaces
@pytest.mark.parametrize("shape", [(2, 4, 8, 6), (2, 4, 9, 7), (2, 4, 3, 8, 5), (2, 4, 50)], ids=str)
def test_renormed_norms_are_conds(space, shape):
    def tokens(t):
        """Sums of squares over tokens of 2 x 2, the last of an odd side alone."""
        t = t.pow(2).sum(1)
        if t.ndim == 2:
            return t
        t = F.pad(t, (0, t.shape[-1] % 2, 0, t.shape[-2] % 2))
        return t.unfold(-2, 2, 2).unfold(-2, 2, 2).sum((-1, -2))

    for over, sizes in (("tokens", tokens), ("pixels", lambda t: t.pow(2).sum(1)), ("sample", length)):
        run = Run(renorm(over=over), space, shape=shape)
        y, y_c = to_output(run.at(2).moment, run.at(2).x, run(2), run.at(2).cond)
        same(sizes(y), sizes(y_c))
        run = Run(renorm(over=over, limit=1.2), space, shape=shape)
        y, y_c, y_cfg = to_output(run.at(2).moment, run.at(2).x, run(2), run.at(2).cond, run.at(2).denoised)
        same(sizes(y), sizes(y_cfg).minimum(sizes(y_c) * (1.2 if over == "sample" else 1.44)))


# ------------------------------------------------------------------------------------------------ frequencies

sizes = pytest.mark.parametrize("shape", [
    (2, 3, 1), (2, 3, 2), (2, 3, 3), (2, 3, 7), (2, 3, 50),
    (2, 3, 1, 1), (2, 3, 2, 3), (2, 3, 9, 13), (2, 3, 16, 8), (2, 3, 2, 5, 7),
], ids=str)


@sizes
def test_equal_shares_of_both_bands_are_one_scale(shape):
    run = Run(fdg(0.37, 0.37), shape=shape)
    same(run(), run.state.cond + 0.37 * (W - 1) * direction(run.state))
    run = Run(fresca(0.37, 0.37), shape=shape)
    same(run(), run.state.uncond + 0.37 * W * direction(run.state))
    low, high = Run(fdg(1.0, 0.0), shape=shape), Run(fdg(0.0, 1.0), shape=shape)
    same(low() + high(), low.state.cond + low.state.denoised)  # the bands add up to the whole


@sizes
def test_a_constant_direction_is_all_low(shape):
    for make, scale in ((fdg, 1 + 0.3 * (W - 1)), (fresca, 0.3 * W)):
        run = Run(make(0.3, 5.0), shape=shape)
        u = run.at(2).cond - torch.rand(shape[:2], dtype=torch.float64).view(*shape[:2], *[1] * (len(shape) - 2))
        answer = run(u=u)
        same(answer, u + scale * (run.state.cond - u), 1e-11)


def test_video_frames_are_pictures():
    for make in (fdg, fresca):
        video, image = Run(make(), shape=(2, 4, 3, 9, 8)), Run(make(), shape=(2, 4, 9, 8))
        answer, s = video(), video.state
        for t in range(3):
            same(image(x=s.x[:, :, t], c=s.cond[:, :, t], u=s.uncond[:, :, t]), answer[:, :, t])


def test_the_cutoff_is_relative_so_that_a_wave_is_on_the_same_side_at_any_size():
    for n in (16, 64, 256):
        run = Run(fresca(0.0, 1.0, cutoff=0.3), shape=(1, 1, n))
        place = torch.arange(n, dtype=torch.float64)
        for share, kept in ((0.25, 0), (0.375, 1)):
            wave = torch.cos(math.pi * share * place).view(1, 1, n)
            answer = run(u=run.at(2).cond - wave)
            same(answer, run.state.uncond + W * kept * wave)


# ------------------------------------------------------------------------------------------------ scales

@spaces
def test_power_law_is_cfg_at_its_reference(space):
    run = Run(power_law(), space, shape=(1, 4, 12, 10))
    c, u = to_output(run.at(2).moment, run.at(2).x, run.at(2).cond, run.at(2).uncond)
    run.step = power_law(reference=(c - u).pow(2).mean().sqrt().item())
    same(run(), run.state.denoised)


def test_power_law_at_its_steepest_is_a_number():
    assert Run(power_law(10.0, reference=1e-4), dtype=torch.float32)(3).isfinite().all()  # 1e40 is no float


def test_power_law_and_beta_cfg_do_not_care_for_the_size_of_the_picture():
    for make in (power_law, beta_cfg):
        small = Run(make(), shape=(1, 4, 6, 5))
        answer, s = small(), small.state
        large = Run(make(), shape=(1, 4, 12, 10))
        tiled = [t.repeat(1, 1, 2, 2) for t in (s.x, s.cond, s.uncond)]
        same(large(**dict(zip("xcu", tiled))), answer.repeat(1, 1, 2, 2))


def test_beta_cfg_starts_and_ends_without_the_prompt_and_its_curve_has_area_1():
    run = Run(beta_cfg(gamma=0.0))
    for i in (0, 3):
        assert torch.equal(run(i), run.state.uncond)
    sigmas = tuple(1 - i / 400 for i in range(401)) + (0.0,)
    line = Timeline(sigmas, FLOW)
    for a, b in ((1, 1), (2, 3), (3.5, 1.5)):
        plan = beta_cfg(a, b).plan
        steps = [plan(line.moment(sigma, W)).scale / W for sigma in sigmas[:-1]]
        assert abs(sum(steps[1:-1]) / 400 + (steps[0] + steps[-1]) / 800 - 1) < 1e-3  # trapezoids


def test_beta_cfg_with_gamma_1_moves_every_sample_as_far():
    run = Run(beta_cfg(1.0, 1.0, 1.0), shape=(3, 4, 64, 64))
    answer = run()
    same(length(answer - run.state.uncond) / run.state.moment.sigma, torch.full((3,), W, dtype=torch.float64))


def test_a_channel_in_range_is_guided_at_the_reference_scale():
    run = Run(auto_range(8.0))
    s = run.at(2)
    factor = W / 10 / auto_ranges(s.uncond + 8 * direction(s))
    c, u = (t * factor.view(*factor.shape, 1, 1) for t in (s.cond, s.uncond))
    same(auto_ranges(u + 8 * (c - u)), torch.full((3, 4), W / 10, dtype=torch.float64))
    same(run(c=c, u=u), u + 8 * (c - u))


def auto_ranges(values):
    ordered = values.flatten(2).sort(-1).values
    quarter = ordered.shape[-1] // 4
    return (ordered[..., -quarter:].mean(-1) + ordered[..., :quarter].abs().mean(-1)) / 2


def test_a_flat_channel_is_not_guided_at_hundreds():
    run = Run(auto_range(8.0))
    s = run.at(2)
    flat = torch.tensor([1.0, 0.005, 1.0, 1.0], dtype=torch.float64).view(1, 4, 1, 1)
    answer = run(c=flat * s.cond, u=flat * s.uncond)
    found = (answer - flat * s.uncond) / (flat * direction(s))
    same(found[:, 1], torch.full_like(found[:, 1], 16.0), 1e-9)
    assert found[:, [0, 2, 3]].max() < 16


@pytest.mark.parametrize("make", [power_law, beta_cfg, partial(beta_cfg, 1.0, 1.0), momentum_guidance])
@spaces
def test_without_noise_there_is_no_network_output_to_measure(make, space):
    run = Run(make(), space, sigmas=(0.0, 0.1, 0.5, 0.9))  # a run that adds noise begins here
    assert run(0).isfinite().all() and run(1).isfinite().all()
    assert run(0, x=run.state.cond, c=run.state.cond, u=run.state.cond).isfinite().all()


def test_skimming_moves_values_only_towards_cond():
    run = Run(skimmed_cfg(3.0))
    answer, s = run(), run.state
    share = (answer - s.cond) / (s.denoised - s.cond)
    assert (share > 0).all() and (share <= 1 + 1e-12).all() and 0.1 < (share < 0.99).double().mean() < 0.9
    assert run.step.apply(run.at(2)).scale == W


KNOBS = {
    "strength": [dynamic_threshold, mimic, cfg_zero_star, tcfg, rescale, renorm, auto_range],
    "mimic_scale": [mimic],
    "eta": [partial(apg, momentum=0.0)],
    "threshold": [partial(apg, momentum=0.0)],
    "alpha": [mambo_g, power_law, momentum_guidance],
    "low": [fdg, fresca],
    "high": [fdg, fresca],
    "gamma": [beta_cfg],
    "skim": [skimmed_cfg],
}


@pytest.mark.parametrize("knob", KNOBS)
def test_strengths_take_schedules(knob):
    for make in KNOBS[knob]:
        scheduled = Run(make(**{knob: parse("0:0.3, 2:0.6 step steps")}))
        low, high = Run(make(**{knob: 0.3})), Run(make(**{knob: 0.6}))
        for i in range(4):
            answers = low(i), high(i)
            assert torch.equal(scheduled(i), answers[i >= 2])
            assert i in (0, 3) or not torch.equal(*answers)


def test_momentum_guidance_starts_with_nothing_and_keeps_a_constant_velocity():
    run = Run(momentum_guidance(), FLOW)
    assert torch.equal(run(0), run.state.denoised)
    assert not torch.equal(run(1), run.state.denoised)
    run, velocity = Run(momentum_guidance(), FLOW), torch.randn(3, 4, 12, 10, dtype=torch.float64)
    for i in range(4):
        x = torch.randn_like(velocity)
        still = x - run.line.sigmas[i] * velocity
        same(run(i, x=x, c=still, u=still), still)


def test_momentum_guidance_remembers_once_per_step():
    once, twice = (Run(momentum_guidance(), sigmas=(8.0, 4.0, 2.0, 1.0, 0.0)) for _ in range(2))
    for i in range(4):
        answer = once(i)
        for _ in range(2):
            assert torch.equal(twice(i), answer)


@pytest.mark.parametrize("steady, found", [(0.05, [-0.15, 0.25, -0.15, 0.25]), (1.0, [0.8] * 4), (0.0, [0.0] * 4)])
def test_smc_switches_what_is_smaller_than_its_gain_to_and_fro(steady, found):
    """The numbers are those of the authors' code."""
    run = Run(smc_cfg(), FLOW, w=2.0)
    for i, right in enumerate(found):
        sigma, x, c = run.line.sigmas[i], torch.zeros(1, 1, 2, 2).double(), torch.full((1, 1, 2, 2), -0.7).double()
        u = c + sigma * steady
        same((u - run(i, x=x, c=c, u=u)) / sigma / 2.0, torch.full_like(x, right))


# ------------------------------------------------------------------------------------------------ reductions

@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_reductions_are_right_beyond_2_to_the_24_elements(mean):
    x, y = (torch.randn(1, 2**24 + 12345) + mean for _ in range(2))
    X, Y = x.double(), y.double()
    for ours, exact in ((ops.norm(x), X.norm()), (ops.std(x), X.std(correction=0)),
                        (ops.dot(x, x + y), (X * (X + Y)).sum()), (ops.rms(x), X.pow(2).mean().sqrt())):
        assert abs(ours.item() / exact.item() - 1) < 3e-7
    if mean == 0:
        ordered = X[0].sort().values
        for q in (0.25, 0.995):
            k, share = divmod(q * (x.numel() - 1), 1)
            exact = ordered[int(k)] * (1 - share) + ordered[int(k) + 1] * share
            assert abs(ops.quantile(x, q).item() / exact.item() - 1) < 1.2e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_the_percentile_is_torchs_where_torch_has_one(dtype, n):
    x = torch.randn(3, n, 2).to(dtype)
    x[0, :, 1] = x[0, :, 0]  # ties
    for q in (0.0, 0.3, 0.995, 1.0):
        same(ops.quantile(x, q).flatten().double(), x.double().flatten(1).quantile(q, dim=1), 2e-7)


def test_the_deviation_of_a_constant_is_0_at_any_size():
    for n in (1, 7, 1000, 2**20 + 1):
        for value in (0.1, 1 / 3, 1e-20, 3e4):
            assert ops.std(torch.full((2, n), value)).tolist() == [[0.0], [0.0]]


def test_what_steers_and_what_adds_chain_in_either_order():
    for make in (partial(apg, momentum=0.0), tcfg, cfg_zero_star, fdg, mambo_g, power_law, skimmed_cfg):
        added = Step(apply=lambda state: state.add(state.x))
        same(Run(chain(make(), added))(), Run(chain(added, make()))())
