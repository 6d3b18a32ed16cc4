"""The one sampler: noise levels and steps between them over a denoiser callable."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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


class Solver(ABC):
    """One way to integrate eq. 2 over given noise levels; `sample` is the loop around it."""

    levels: Tensor
    """``(num_steps + 1,)`` falling from 1 to 0, on the CPU: what the denoiser is asked at."""

    @abstractmethod
    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        """Latents after a step.

        Args:
            index: The step's, from 0; steps follow each other.
            velocity: z - eps at the latents, as `Denoiser` gives it, fp32.
            latents: ``(B, C, T, H, W)`` fp32.
        """

    def memory(self) -> dict[str, Tensor]:
        """What the next step needs besides the latents, by names; nothing of Euler's method."""
        return {}

    def remember(self, num_done: int, memory: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Go on after ``num_done`` steps of another one, which left ``memory``."""


class Euler(Solver):
    """Euler's method: z <- z + (sigma_i - sigma_{i+1}) v(z, sigma_i)."""

    def __init__(self, levels: Tensor) -> None:
        """Take the levels, ``(num_steps + 1,)`` fp32 on the CPU."""
        self.levels = levels

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        """A step along the velocity."""
        length = (self.levels[index] - self.levels[index + 1]).item()
        step_size = torch.full((len(latents),), length, device=latents.device)
        return latents + per_sample(step_size, latents) * velocity


def sample(
    denoiser: Denoiser,
    noise: Tensor,
    solver: Solver,
    *,
    first_step: int = 0,
    on_step_end: Callable[[int, Tensor], Tensor | None] | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> Tensor:
    """Integrate eq. 2 from noise to data.

    Args:
        denoiser: Returns the velocity z - eps.
        noise: ``(B, C, T, H, W)``, kept in fp32 throughout.
        solver: Noise levels, and what a step between two of them is.
        first_step: The step to start with; ``noise`` are then the latents before it, and the solver
            remembers what it needs.
        on_step_end: Called with the step's index and the latents after it; latents it returns take
            their place.
        progress: Wraps the range of steps, e.g. a progress bar.
    """
    latents, levels = noise.float(), solver.levels
    steps = range(first_step, len(levels) - 1)
    for i in progress(steps) if progress else steps:
        sigma = torch.full(
            (len(latents),), levels[i].item(), dtype=levels.dtype, device=latents.device
        )
        latents = solver.step(i, denoiser(latents, sigma).float(), latents)
        if on_step_end is not None:
            replaced = on_step_end(i, latents)
            latents = latents if replaced is None else replaced.float()
    return latents


def euler_sample(denoiser: Denoiser, noise: Tensor, sigmas: Tensor, **options: Any) -> Tensor:
    """`sample` by Euler's method; ``sigmas`` are the levels, ``options`` those of `sample`."""
    return sample(denoiser, noise, Euler(sigmas), **options)
