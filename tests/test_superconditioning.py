"""Training of networks that predict with the prompt and without it at once, on any torch module."""

import pytest
import torch
from pack.lab import superconditioning_example as example
from pack.lab.superconditioning import derangement, distilled, exchanged, loss, step, widen
from torch import nn


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("layer, shape", [(nn.Linear(5, 3), (2, 5)), (nn.Conv2d(5, 3, 3, padding=1), (2, 5, 4, 4)),
                                          (nn.Conv3d(5, 3, 1, bias=False), (2, 5, 2, 4, 4))])
def test_a_widened_network_first_predicts_the_same_twice(layer, shape):
    network, x = nn.Sequential(nn.Identity(), layer), torch.randn(shape, generator=rng())
    before = network(x)
    widen(network, "1")
    after = network(x)
    for half in after.chunk(2, -1 if isinstance(layer, nn.Linear) else 1):
        torch.testing.assert_close(half, before)
    assert all(weight.requires_grad for weight in network.parameters())
    assert getattr(layer, "out_features", None) == 6 or layer.out_channels == 6


@pytest.mark.parametrize("layer", [nn.LayerNorm(4), nn.Conv2d(4, 4, 3, groups=2)])
def test_what_has_no_outputs_to_double_is_refused(layer):
    with pytest.raises(TypeError, match="0 is a .*; it has to be a Linear or an ungrouped convolution"):
        widen(nn.Sequential(layer), "0")


def test_a_derangement_leaves_none_in_place_and_prefers_no_order():
    places, count = torch.arange(4), torch.zeros(4, 4)
    for seed in range(900):
        order = derangement(4, rng(seed))
        assert sorted(order.tolist()) == places.tolist() and (order != places).all()
        count[places, order] += 1
    expected = 900 / 3
    assert (count[~torch.eye(4, dtype=torch.bool)] - expected).abs().max() < 5 * (900 * 2 / 9) ** 0.5


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_cannot_be_exchanged_with_another(count):
    with pytest.raises(ValueError, match=f"{count} samples .* it takes 2"):
        derangement(count)


def test_captions_are_exchanged_among_those_that_are_told_so():
    captions = torch.arange(40).view(20, 2)
    changed, alone = exchanged(captions, rng(), 0.3)
    assert alone.sum() == 6
    assert torch.equal(changed[~alone], captions[~alone]) and (changed[alone] != captions[alone]).all()
    assert sorted(changed[alone, 0].tolist()) == captions[alone, 0].tolist()
    assert exchanged(captions, rng(), 0.01)[1].sum() == 2  # the least that can be exchanged
    assert exchanged(captions, rng(), 1.0)[1].all()


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=f"share is {share}; it has to be above 0 and at most 1"):
        exchanged(torch.zeros(4, 2), share=share)


def test_each_half_learns_from_its_own_samples_and_counts_the_same():
    prediction = torch.zeros(10, 4, 3, 3, requires_grad=True)
    target, alone = torch.ones(10, 2, 3, 3), torch.arange(10) < 2
    error = loss(prediction, target, alone)
    error.backward()
    torch.testing.assert_close(error, torch.tensor(2.0))
    cond, uncond = prediction.grad.chunk(2, 1)
    assert cond[alone].abs().max() == 0 and uncond[~alone].abs().max() == 0
    torch.testing.assert_close(cond.sum(), uncond.sum())  # although one has four times the samples


@pytest.mark.parametrize("alone", [True, False])
def test_a_half_without_samples_adds_nothing(alone):
    prediction = torch.zeros(3, 4, requires_grad=True)
    loss(prediction, torch.ones(3, 2), torch.full((3,), alone)).backward()
    assert torch.isfinite(prediction.grad).all() and prediction.grad.abs().sum() > 0


def test_a_finished_model_is_the_target_of_both_halves():
    cond, uncond = torch.randn(2, 6, 3, 4, 4, generator=rng())
    assert distilled(torch.cat([cond, uncond], 1), cond, uncond) == 0
    off = torch.cat([cond, uncond + 2], 1)
    torch.testing.assert_close(distilled(off, cond, uncond), torch.tensor(2.0))
    torch.testing.assert_close(distilled(off, cond, uncond, torch.arange(6.0)), torch.tensor(5.0))


def test_steps_lower_the_loss():
    torch.manual_seed(0)
    network = example.Points()
    widen(network, "layers.4")
    label = torch.arange(64) % 2
    x, sigma = torch.randn(64, 2, generator=rng()), torch.ones(64, 1)
    optimizer, draw = torch.optim.Adam(network.parameters(), 1e-2), rng(1)
    errors = [step(network, optimizer, x, sigma, label, label.view(-1, 1) + x, draw, share=0.5) for _ in range(60)]
    assert sum(errors[-10:]) < sum(errors[:10]) / 2


def test_the_example_guides_in_one_forward():
    """Its classes overlap: of one, 76 % lie on its own side."""
    network = example.train()
    right = {scale: (example.sample(network, scale)[:, 0] > 0).float().mean() for scale in (0, 1, 4)}
    assert 0.4 < right[0] < 0.65 and 0.7 < right[1] < 0.82 and right[4] > 0.93
