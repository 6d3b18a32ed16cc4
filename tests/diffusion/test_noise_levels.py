import math

import pytest
import torch

from musicinfuser.diffusion.noise_levels import beta_quantile, shifted


@pytest.mark.parametrize("beta", [1.0, 1.5, 3.0, 10.0])
def test_quantile_inverts_the_distribution_function(beta):
    u = torch.linspace(0, 0.999, 500, dtype=torch.float64)
    x = beta_quantile(u, beta)
    torch.testing.assert_close(1 - (1 - x) ** beta, u, rtol=0, atol=1e-12)
    assert x.min() >= 0 and x.max() < 1
    assert (x.diff() > 0).all()


def test_quantile_at_beta_one_is_the_uniform_draw():
    u = torch.rand(100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(beta_quantile(u, 1.0), u, rtol=1e-6, atol=0)


def test_quantile_keeps_precision_near_zero():
    """In fp32, 1 - (1 - u)^(1/beta) as written would round to 0 here; x is about u / beta."""
    u = torch.tensor([1e-9, 1e-8])
    torch.testing.assert_close(beta_quantile(u, 3.0), u / 3, rtol=1e-5, atol=0)
    assert beta_quantile(torch.zeros(1), 3.0).item() == 0


def test_shift_moves_odds_by_its_factor():
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shifted(u, 1.0), u)
    moved = shifted(u.double(), 4.0)
    torch.testing.assert_close(moved / (1 - moved), 4 * u.double() / (1 - u.double()))
    ends = torch.tensor([0.0, 1.0])
    assert torch.equal(shifted(ends, 4.0), ends)
    assert 0.15 < (moved > 0.95).double().mean() < 0.2


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_moments_by_quadrature(beta):
    """Midpoints over u integrate the quantile: mean and variance of Beta(1, beta)."""
    num = 200_000
    u = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    x = beta_quantile(u, beta)
    assert x.mean().item() == pytest.approx(1 / (1 + beta), abs=1e-7)
    variance = beta / ((1 + beta) ** 2 * (2 + beta))
    assert x.var(unbiased=False).item() == pytest.approx(variance, abs=1e-7)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_sample_mean_of_seeded_draws(beta):
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(5))
    x = beta_quantile(u, beta)
    spread = math.sqrt(beta / ((1 + beta) ** 2 * (2 + beta)) / len(u))
    assert abs(x.mean().item() - 1 / (1 + beta)) < 4 * spread
