"""Conditioning dropout: how often, which samples, and that it takes the whole condition or nothing."""

import pytest
import torch
from pack.guidance.dropout import drop_condition

N = 20_000


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def dropped(p, seed=0):
    """Which of N samples lose tokens and pooled embedding: two masks (N,)."""
    tokens, pooled = torch.ones(N, 2, 3), torch.ones(N, 4)
    out = drop_condition([tokens, pooled], [torch.zeros(1, 2, 3), torch.zeros(1, 4)], p, rng(seed))
    masks = [(value == 0).flatten(1) for value in out]
    assert all((mask.all(1) == mask.any(1)).all() for mask in masks)  # rows go whole
    return [mask.all(1) for mask in masks]


@pytest.mark.parametrize("p", [.1, .2, .5])
def test_the_share_of_dropped_samples_is_p(p):
    tokens, _ = dropped(p)
    assert abs(tokens.float().mean() - p) < 4 * (p * (1 - p) / N) ** .5


def test_zero_never_drops_and_one_always_does():
    assert not dropped(0)[0].any()
    assert dropped(1)[0].all()


def test_all_conditions_of_a_sample_are_dropped_together():
    tokens, pooled = dropped(.3)
    assert torch.equal(tokens, pooled)


def test_one_p_per_encoder_drops_them_independently():
    tokens, pooled = dropped([.5, .2])
    for mask, p in ((tokens, .5), (pooled, .2), (tokens & pooled, .1)):
        assert abs(mask.float().mean() - p) < 4 * (p * (1 - p) / N) ** .5


def test_the_generator_decides():
    assert torch.equal(dropped(.3, seed=1)[0], dropped(.3, seed=1)[0])
    assert not torch.equal(dropped(.3, seed=1)[0], dropped(.3, seed=2)[0])


def test_kept_rows_are_untouched_and_dropped_rows_are_the_null():
    cond, null = torch.randn(64, 5, generator=rng()).half(), torch.randn(1, 5, generator=rng(1))
    out, = drop_condition([cond], [null], .5, rng(2))
    gone = (out == null.half()).all(1)
    assert 0 < gone.sum() < 64
    assert out.dtype == cond.dtype and torch.equal(out[~gone], cond[~gone])


def test_integer_tokens_can_be_dropped():
    out, = drop_condition([torch.arange(8).view(4, 2)], [torch.tensor([[9, 9]])], 1)
    assert (out == 9).all()


@pytest.mark.parametrize("p", [-.1, 1.5, [.1, 2], float("nan")])
def test_a_probability_outside_0_to_1_is_refused(p):
    with pytest.raises(ValueError, match="0..1"):
        drop_condition([torch.ones(2, 1)] * 2, [torch.zeros(1, 1)] * 2, p)


def test_a_missing_null_is_refused():
    with pytest.raises(ValueError, match="as many nulls"):
        drop_condition([torch.ones(2, 1)] * 2, [torch.zeros(1, 1)], .1)
