"""Noise levels: sigma ~ Beta(1, beta) (section 4.2, eq. 5)."""

import torch
from torch import Tensor


def beta_quantile(u: Tensor, beta: float) -> Tensor:
    """Map uniform draws to Beta(1, beta) by the inverse of its distribution function.

    F(x) = 1 - (1 - x)^beta, hence x = 1 - (1 - u)^(1 / beta).

    Args:
        u: Uniform draws in [0, 1).
        beta: At least 1; 1 is the uniform distribution, larger favours low noise.
    """
    return -torch.expm1(torch.log1p(-u) / beta)


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1: shift * sigma / (1 + (shift - 1) * sigma).

    Eq. 23 of Esser et al. 2024 (arXiv 2403.03206), there for larger pictures. Of uniform levels
    with a shift of 4, 17 % lie above 0.95.

    Args:
        sigma: Noise levels in [0, 1].
        shift: Positive; 1 changes nothing, bit for bit.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)
