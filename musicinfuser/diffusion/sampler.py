"""The one sampler: a noise schedule and Euler's method over a denoiser callable."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from musicinfuser.diffusion.flow import per_sample
from musicinfuser.diffusion.guidance import Denoiser
from musicinfuser.setting_checks import check_number

# Genmo's and the authors' schedule: 64 steps, the first half linear down to 1 - 0.025.
NUM_STEPS = 64
LINEAR_THRESHOLD = 0.025


def linear_quadratic_sigmas(num_steps: int, *, threshold: float = LINEAR_THRESHOLD) -> Tensor:
    """Noise levels from 1 to 0, ``(num_steps + 1,)`` fp32 on the CPU.

    The first half falls linearly by ``threshold`` in all, the second quadratically to 0, with
    equal slope where they meet.

    Raises:
        ValueError: Fewer than one step.
    """
    check_number("the number of sampling steps", num_steps, at_least=1)
    num_linear = num_steps // 2
    num_quadratic = num_steps - num_linear
    i = torch.arange(num_steps + 1, dtype=torch.float64)
    slope = threshold / num_linear if num_linear else 0.0
    start = threshold if num_linear else 0.0
    along = (i - num_linear).clamp(min=0)
    curvature = (1 - start - slope * num_quadratic) / num_quadratic**2
    quadratic = start + slope * along + curvature * along**2
    noise_removed = torch.where(i < num_linear, slope * i, quadratic)
    return (1 - noise_removed).clamp(min=0).float()


def euler_sample(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    *,
    first_step: int = 0,
    on_step_end: Callable[[int, Tensor], Tensor | None] | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> Tensor:
    """Integrate eq. 2 from noise to data: z <- z + (sigma_i - sigma_{i+1}) v(z, sigma_i).

    Args:
        denoiser: Returns the velocity z - eps.
        noise: ``(B, C, T, H, W)``, kept in fp32 throughout.
        sigmas: Decreasing levels, ``(num_steps + 1,)``, on the CPU.
        first_step: The step to start with; ``noise`` are then the latents before it.
        on_step_end: Called with the step's index and the latents after it; latents it returns take
            their place.
        progress: Wraps the range of steps, e.g. a progress bar.
    """
    latents = noise.float()
    steps = range(first_step, len(sigmas) - 1)
    for i in progress(steps) if progress else steps:
        sigma = torch.full((len(latents),), sigmas[i].item(), device=latents.device)
        step_size = per_sample(torch.full_like(sigma, (sigmas[i] - sigmas[i + 1]).item()), latents)
        latents = latents + step_size * denoiser(latents, sigma).float()
        if on_step_end is not None:
            replaced = on_step_end(i, latents)
            latents = latents if replaced is None else replaced.float()
    return latents
