"""NAG's identities. Chen et al. 2025, https://arxiv.org/abs/2505.21179"""

import pytest
import torch
from pack.guidance.nag import nag


@pytest.fixture
def answers():
    return torch.randn(2, 5, 16), torch.randn(2, 5, 16)


def test_it_is_off_at_scale_0_and_at_alpha_0(answers):
    assert nag(*answers, scale=0) is answers[0]
    assert nag(*answers, alpha=0) is answers[0]


def test_a_negative_that_says_the_same_changes_nothing(answers):
    torch.testing.assert_close(nag(answers[0], answers[0], scale=7.0), answers[0])


def test_without_limit_and_blend_it_extrapolates(answers):
    plus, minus = answers
    torch.testing.assert_close(nag(plus, minus, 3.0, tau=1e9, alpha=1.0), plus + 3 * (plus - minus))


def test_it_is_the_papers_formula_at_the_papers_scale_less_1(answers):
    plus, minus = answers
    scale, tau, alpha = 5.0, 2.5, 0.25  # as the paper counts
    z = scale * plus - (scale - 1) * minus
    ratio = (z.norm(p=1, dim=-1) / plus.norm(p=1, dim=-1)).unsqueeze(-1)
    z = torch.where(ratio > tau, z * tau / ratio, z)
    torch.testing.assert_close(nag(plus, minus, scale - 1, tau, alpha), alpha * z + (1 - alpha) * plus)


def test_no_token_grows_longer_than_tau_times_its_own_length(answers):
    grown = nag(*answers, scale=50.0, tau=1.5, alpha=1.0).norm(p=1, dim=-1) / answers[0].norm(p=1, dim=-1)
    torch.testing.assert_close(grown, torch.full_like(grown, 1.5))


def test_a_token_is_all_its_heads_together(answers):
    by_head = [a.unflatten(-1, (4, 4)).transpose(1, 2) for a in answers]
    torch.testing.assert_close(nag(*by_head, features=(1, 3)).transpose(1, 2).flatten(2), nag(*answers))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_and_zeros_stay_finite(dtype):
    zeros = torch.zeros(1, 2, 8, dtype=dtype)
    ones = torch.full_like(zeros, 60000 if dtype == torch.float16 else 1.0)
    for pair in ((zeros, zeros), (zeros, ones), (ones, zeros), (ones, -ones)):
        out = nag(*pair, scale=8.0)
        assert out.dtype == dtype
    assert nag(zeros, ones).eq(0).all() and nag(ones, -ones, tau=1.0).isfinite().all()
