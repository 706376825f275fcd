"""The bundled model in one pass, on the real host: what stays as it was, what it costs, and that it guides."""

import gc
import weakref

import pytest
import torch
from pack.lab import data, metrics, single_pass, train
from pack.lab.sweep import sample as drawn
from pack.nodes.demo import judge, model
from pack.nodes.demo.single_pass import SinglePassUNet
from pack.nodes.other_models import SinglePass
from pack.tests.host import counted_by, made, node, sample
from pack.tests.measure import close, far


@pytest.fixture(scope="module", params=list(model.TYPES))
def pair(request):
    """(ordinary, single-pass without its node), as a model of each kind."""
    return model.load(request.param)[0], model.load(request.param, model.SINGLE_PASS)[0]


def asked(demo, size=32, batch=2, **how):
    noise = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(3))
    return dict(positive=demo.encode("a small red circle on blue"), negative=demo.encode(""), noise=noise, steps=4, **how)


def test_without_its_node_it_is_the_ordinary_model(pair, demo):
    ordinary, single = pair
    assert torch.equal(sample(single, **asked(demo, cfg=4.0)), sample(ordinary, **asked(demo, cfg=4.0)))


def test_at_cfg_1_it_is_the_ordinary_model(pair, demo):
    ordinary, single = pair
    assert torch.equal(sample(node(SinglePass, single), **asked(demo, cfg=1.0)), sample(ordinary, **asked(demo, cfg=1.0)))


@pytest.mark.parametrize("size", [32, 40, 36, 33])
def test_guided_it_takes_one_row_a_step_at_any_size(pair, demo, size):
    ordinary, single = pair
    answer, rows, calls = counted_by(sample, node(SinglePass, single), **asked(demo, size, 1, cfg=4.0))
    assert (rows, calls) == (4, 4)
    cond, guided = (sample(ordinary, **asked(demo, size, 1, cfg=cfg)) for cfg in (1.0, 4.0))
    if size == 32:  # which it was trained for
        assert (answer - guided).norm() < 0.7 * (answer - cond).norm()


def test_rows_of_a_batch_do_not_see_each_other(demo):
    single = node(SinglePass, model.load("v", model.SINGLE_PASS)[0])
    both = asked(demo, cfg=4.0)
    alone = {**both, "noise": both["noise"][1:]}
    close(sample(single, **both)[1:], sample(single, **alone), 1e-4)


def test_pag_beside_it_costs_its_own_row_alone(demo):
    single = node(SinglePass, model.load("v", model.SINGLE_PASS)[0])
    answer, rows, _ = counted_by(sample, made("GuidancePAG", single, layers="middle", scale=2.0), **asked(demo, batch=1, cfg=4.0))
    assert rows == 8 and torch.isfinite(answer).all()
    far(answer, sample(single, **asked(demo, batch=1, cfg=4.0)))


def test_it_keeps_nothing_of_a_forward(demo):
    single = node(SinglePass, model.load("v", model.SINGLE_PASS)[0])
    sample(single, **asked(demo, cfg=4.0))
    assert single.model.diffusion_model.found == {}


def test_it_is_freed_without_a_search_for_circles():
    network = model.load("v", model.SINGLE_PASS)[0].model.diffusion_model
    gone = weakref.ref(network)
    gc.disable()
    try:
        del network
        assert gone() is None
    finally:
        gc.enable()


def test_it_guides():
    """Of pictures at cfg 4, the share that shows what was asked for."""
    single, clip, vae = model.load("v", model.SINGLE_PASS)
    single, n = node(SinglePass, single), 96
    _, scenes = metrics.real(n, 5)
    prompts, jury = [data.caption(scenes, i) for i in range(n)], judge.load()
    reference = metrics.reference(jury, 500)
    share = {cfg: metrics.score(drawn(single, clip, vae, prompts, cfg, steps=12), scenes, jury, reference)["core3"]
             for cfg in (1.0, 4.0)}
    assert share[1.0] < 0.45 and share[4.0] > 0.65


# ------------------------------------------------------------------------------------------- training

def test_before_it_is_trained_nothing_differs_without_the_prompt():
    network, teacher, text = single_pass.networks()
    x, time = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([500.0, 20.0])
    tokens = text(torch.ones(2, single_pass.LENGTH, dtype=torch.long))
    both = network(x, time, tokens, transformer_options=single_pass.OPTIONS)
    cond = teacher(x, time, tokens, transformer_options=single_pass.OPTIONS)
    assert torch.equal(both, torch.cat([cond, cond], 1))
    assert isinstance(network, SinglePassUNet)
    assert all(weight.requires_grad == name.startswith("second.") for name, weight in network.named_parameters())


def test_runs_are_those_of_the_host_at_their_scales(demo):
    """A run of 8 steps that goes on by the model's own predictions is what KSampler makes of the same noise."""
    runs = single_pass.Runs(1, torch.Generator().manual_seed(0))
    runs.begin(torch.tensor([0]))
    runs.steps[:], runs.scale[:] = 8, 3.0
    noise = runs.x / (1 + runs.table[-1] ** 2).sqrt()
    prompts = [demo.encode(text)[0][0] for text in ("a small red circle on blue", "")]
    network = demo.model.model.diffusion_model.eval()
    expected = sample(demo.model, noise=noise, steps=8, cfg=3.0, positive=demo.encode("a small red circle on blue"),
                      negative=demo.encode(""))
    for _ in range(8):
        before, sigma = runs.x, runs.sigma().view(-1, 1, 1, 1)
        h = (1 + sigma ** 2).sqrt()
        time = train.timestep(sigma.flatten(), runs.table)
        cond, uncond = (before / h / h - sigma * network(before / h, time, text, transformer_options={}) / h for text in prompts)
        if runs.step == 7:
            last = uncond + 3.0 * (cond - uncond)
        runs.go_on(cond, uncond)
    close(last, expected, 2e-2)
    assert runs.step == 0  # and another begins


def test_a_direction_counts_for_the_more_the_smaller_it_is_at_its_level():
    weights = single_pass.Weights()
    sigma = torch.tensor([1.0, 1.0, 10.0, 10.0])
    cond = torch.tensor([0.1, 0.1, 0.5, 0.5]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    weight, size, _ = weights(sigma, cond, torch.zeros_like(cond))
    torch.testing.assert_close(size, torch.tensor([0.01, 0.01, 0.25, 0.25]))
    torch.testing.assert_close(weight, 1 / (size + single_pass.ROUNDING))
