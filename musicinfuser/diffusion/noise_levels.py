"""Noise levels: sigma ~ Beta(1, beta) with beta annealed from 3 to 1 (section 4.2, eq. 5)."""

from typing import Literal

import torch
from torch import Tensor

from musicinfuser.errors import UserError

BetaMode = Literal["exponential", "linear", "fixed"]


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


def annealed_beta(
    step: int,
    *,
    initial: float,
    half_life_steps: int,
    mode: BetaMode = "exponential",
    num_steps: int | None = None,
) -> float:
    """Beta at an optimizer step, from ``initial`` towards 1.

    Args:
        step: Optimizer steps done so far.
        initial: beta at step 0 (section 5.1: 3).
        half_life_steps: Steps in which the distance to 1 halves (authors' code: 200).
        mode: ``exponential``: 1 + (initial - 1) * 2^(-step / half_life); ``linear``: falls evenly
            to 1 at ``num_steps``; ``fixed``: stays at ``initial``.
        num_steps: Length of the linear fall.
    """
    match mode:
        case "exponential":
            return 1.0 + (initial - 1.0) * 2.0 ** (-step / half_life_steps)
        case "linear":
            if num_steps is None:
                raise UserError("linear annealing of beta needs num_steps.")
            return 1.0 + (initial - 1.0) * max(0.0, 1.0 - step / num_steps)
        case "fixed":
            return initial
    raise UserError(f"beta mode {mode!r} is unknown; choose exponential, linear or fixed.")
