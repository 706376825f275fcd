"""The mixture is what it says it is: exact, a model of the host, and measured by numbers that are known here."""

import numpy as np
import pytest
import torch
from pack.guidance.space import EPS, FLOW
from pack.lab.mixture import claims, measure, picture, report, runs
from pack.lab.mixture.model import Classifier, conditioning, load, patterns, pictures
from pack.nodes import STRATEGIES

SPACES = {"eps": EPS, "flow": FLOW}
spaces = pytest.mark.parametrize("prediction", SPACES)
SEEDS, N = 4, 512


def double(mixture):
    return type(mixture)(mixture.means.double(), mixture.weights.double(), mixture.classes, mixture.variance.double())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def truth():
    return measure.Truth(pictures(), runs.prompts()[0])


def measured(truth, **results):
    return claims.Measured(truth, results, measure.resampling(SEEDS))


# ---------------------------------------------------------------------------------------------------- exactness

@spaces
@pytest.mark.parametrize("sigma", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("wanted", [None, 0, 2])
def test_predictions_follow_from_the_gradient_of_the_density(prediction, sigma, wanted):
    mixture, space = double(pictures()), SPACES[prediction]
    prompt = None if wanted is None else mixture.only(wanted)
    x = (3 * torch.randn(40, 16, generator=rng(), dtype=torch.float64)).requires_grad_()
    score, = torch.autograd.grad(mixture.log_density(x, sigma, space, prompt).sum(), x)
    expected = (x + sigma**2 * score) / space.alpha(sigma)  # Tweedie's formula
    torch.testing.assert_close(mixture.denoised(x, sigma, space, prompt), expected, atol=1e-5, rtol=0)


def test_the_density_is_that_of_the_modes_and_adds_up_to_one():
    mixture = double(pictures())
    x, prompt = 3 * torch.randn(20, 16, generator=rng(), dtype=torch.float64), mixture.only(1)
    chosen = mixture.classes == 1
    components = torch.distributions.Independent(torch.distributions.Normal(mixture.means[chosen], mixture.variance.sqrt()), 1)
    known = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights[chosen]), components)
    torch.testing.assert_close(mixture.log_density(x, 0.0, EPS, prompt), known.log_prob(x))


@spaces
@pytest.mark.parametrize("blur", [(1.0, 1.0), (2.0, 3.0)], ids=["exact", "blurred"])
@pytest.mark.parametrize("share", [0.02, 0.37, 0.8])
def test_the_model_predicts_the_mixture_through_the_host(prediction, blur, share):
    model, space = load(prediction, blur).model, SPACES[prediction]
    sigma = share * float(model.model_sampling.sigma_max)
    coordinates = 3 * space.alpha(sigma) * torch.randn(30, 16, generator=rng()) + sigma
    for prompt, factor in zip(runs.prompts(), (*blur, blur[0])):
        rows = conditioning(prompt)[0][0].expand(30, -1, -1)
        x = (coordinates @ patterns()).view(30, 1, 4, 4)
        found = model.apply_model(x, torch.full((30,), sigma), c_crossattn=rows).flatten(1) @ patterns().T
        torch.testing.assert_close(found, pictures().wider(factor).denoised(coordinates, sigma, space, prompt),
                                   atol=1e-4, rtol=1e-4)


def test_the_classifier_is_the_difference_of_the_densities():
    mixture, prompt, x = pictures(), pictures().only(0), torch.randn(20, 1, 4, 4, generator=rng())
    coordinates = x.flatten(1) @ patterns().T
    bayes = mixture.log_density(coordinates, 0.5, FLOW, prompt) - mixture.log_density(coordinates, 0.5, FLOW)
    bayes = bayes + mixture.weights[mixture.classes == 0].sum().log()
    torch.testing.assert_close(Classifier("flow", prompt)(x, 0.5), bayes, atol=1e-4, rtol=1e-4)


@spaces
def test_without_guidance_samples_are_as_close_to_the_truth_as_true_ones_nearly(prediction, truth):
    seen, rows = runs.run(runs.Bench(prediction), runs.plain(1), SEEDS, N)
    found = measured(truth, found=runs.Result(seen, rows), real=runs.real(SEEDS, N))
    distance, floor = (float(found.of("distance", title)[0]) for title in ("found", "real"))
    assert rows == 1 and distance < floor + 0.05
    assert float(found.of("coverage", "found")[0]) > 0.96
    assert abs(float(found.of("spread", "found")[0]) - 1) < 0.05


# ---------------------------------------------------------------------------------------------------- measures

def test_distance_coverage_overshoot_and_spread_of_known_samples(truth):
    mixture, prompt = pictures(), runs.prompts()[0]
    true = torch.stack([mixture.draw(5000, rng(seed), prompt) for seed in range(SEEDS)])
    moved, outward, narrow = true.clone(), true.clone(), true.clone()
    moved[..., 0] += 0.2
    for samples, scale in ((outward, 1.0), (narrow, 0.5)):
        for x in samples:
            centres = mixture.means[mixture.nearest(x, prompt), :2]
            x[:, :2] = centres + scale * (x[:, :2] - centres)
            if scale == 1:
                x[:, :2] += 0.3 * mixture.variance[0].sqrt() * centres / centres.norm(dim=1, keepdim=True)
    found = {name: measured(truth, it=runs.Result(measure.see(mixture, prompt, samples), 1.0))
             for name, samples in dict(true=true, moved=moved, outward=outward, narrow=narrow).items()}
    value = lambda name, of: float(found[of].of(name, "it")[0])
    assert value("distance", "true") < 0.03 and value("coverage", "true") > 0.98
    assert value("distance", "moved") == pytest.approx(0.2 * 2 / torch.pi, rel=0.1)  # the mean of |cos| over directions
    assert value("overshoot", "outward") - value("overshoot", "true") == pytest.approx(0.3, abs=0.02)
    assert value("spread", "narrow") == pytest.approx(0.5, abs=0.02)
    first = true[:, mixture.nearest(true[0], prompt) == 0][:1]
    one = measured(truth, it=runs.Result(measure.see(mixture, prompt, first.expand(SEEDS, -1, -1)), 1.0))
    assert float(one.of("coverage", "it")[0]) == pytest.approx(0.09 / 0.26, abs=1e-4)


def test_a_claim_is_confirmed_contradicted_or_not_visible(truth):
    mixture, prompt = pictures(), runs.prompts()[0]
    true = torch.stack([mixture.draw(N, rng(seed), prompt) for seed in range(SEEDS)])
    other = torch.stack([mixture.draw(N, rng(90 + seed), prompt) for seed in range(SEEDS)])
    seen = {name: runs.Result(measure.see(mixture, prompt, samples), 1.0)
            for name, samples in dict(true=true, other=other, far=true + 0.5).items()}
    bench = measured(truth, **seen)

    def verdict(holds):
        claim = claims.Claim("", "", "", holds, (runs.EXACT,))
        return claims.Finding(claim, runs.EXACT, *measure.interval(holds(bench))).verdict

    assert verdict(claims.less("distance", "true", "far")) == "confirmed"
    assert verdict(claims.less("distance", "far", "true")) == "contradicted"
    assert verdict(claims.less("coverage", "other", "true")) == "not visible here"
    assert verdict(claims.same("distance", "true", "true")) == "confirmed"


def test_a_setting_that_is_plain_cfg_is_no_closer_at_the_same_alignment(truth):
    results = {runs.plain(scale).title: runs.run(runs.EXACT, runs.plain(scale), SEEDS, 128) for scale in runs.SCALES}
    results["between"] = runs.run(runs.EXACT, runs.plain(3.5), SEEDS, 128)
    value, *_ = measure.interval(measured(truth, **results).matched("distance", "between"))
    assert abs(value) < 0.02
    assert results["CFG 4"].rows == 2 and results["no guidance"].rows == 1


def test_without_a_tilt_what_is_tilted_is_the_truth(truth):
    torch.testing.assert_close(truth.tilted(1), truth.below, atol=0.01, rtol=0)
    assert (truth.tilted(3) - truth.below).abs().max() > 0.02


# ---------------------------------------------------------------------------------------------------- completeness

def test_every_strategy_is_run_or_it_is_said_why_not():
    run = {node.split()[0] for setting in runs.SETTINGS for node in setting.node.split("+") if node}
    ids = {cls.node_id for cls in STRATEGIES}
    assert run | set(runs.CANNOT) == ids and not run & set(runs.CANNOT)


@pytest.fixture(scope="module")
def all_true(truth):
    """What is measured if every setting gives true samples."""
    seen, weights = runs.real(SEEDS, 64)._replace(rows=1.0), measure.resampling(SEEDS, 3)
    return {bench: claims.Measured(truth, dict.fromkeys(("real", *(s.title for s in report.on(bench))), seen), weights)
            for bench in runs.BENCHES}


def test_every_claim_is_about_settings_that_are_run(all_true):
    found = claims.findings(all_true)
    assert all(finding.value == finding.value for finding in found)
    assert {finding.verdict for finding in found if "changes nothing" in finding.claim.text} == {"confirmed"}


def test_the_report_has_a_line_for_each_setting_and_each_claim(all_true, tmp_path):
    settings = sum(1 + len(report.on(bench)) for bench in runs.BENCHES)
    lines = [line for line in report.table(all_true, "") if line.startswith("| ")]
    assert len(lines) == settings + len(runs.BENCHES)
    report.write_csv(tmp_path / "table.csv", all_true)
    assert len((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()) == settings + 1
    told = [line for line in report.told(claims.findings(all_true), "") if line.startswith("| ")]
    assert len(told) == len(claims.CLAIMS) + 1


def test_the_picture_shows_samples_where_they_are():
    titles = {setting.title for setting in runs.SETTINGS}
    assert len(titles) == len(runs.SETTINGS) and set(report.SHOWN) <= titles
    empty = picture.background()
    places = torch.tensor([[-3.0, 1.8]]).repeat(50, 1)
    changed = (np.asarray(picture.panel(places, empty)) != np.asarray(picture.panel(places[:0], empty))).any(2)
    y, x = (float(where.mean()) / picture.SIDE for where in changed.nonzero())
    assert (x, y) == pytest.approx(((-3.0 / picture.HALF + 1) / 2, (-1.8 / picture.HALF + 1) / 2), abs=0.01)


@pytest.mark.parametrize("setting", [s for s in runs.SETTINGS if s.node], ids=lambda setting: setting.title)
def test_every_setting_runs(setting):
    for bench in (runs.BLURRED, runs.BLURRED_FLOW):
        if bench.prediction in setting.on:
            samples, rows = runs.sample(bench, setting, runs.noise_of(1, 4), steps=4)
            assert samples.isfinite().all() and rows >= 1
