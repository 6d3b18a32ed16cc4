"""Latents longer than one pass can hold: overlapping windows that are denoised together.

MultiDiffusion (arXiv 2302.08113) along time: at each step the velocity of every window is
evaluated for itself, with its own positions, and where windows overlap the velocities are blended.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from musicinfuser.clip_size import FRAMES_PER_LATENT
from musicinfuser.diffusion.guidance import Denoiser


@dataclass(frozen=True)
class Windows:
    """Windows of one length that cover all latent frames, spread evenly."""

    num_frames: int
    """Latent frames in all."""
    length: int
    """Latent frames of a window; one that is longer than all covers them alone."""
    overlap: int
    """Latent frames that neighbours share at least, less than the length."""
    repeats_noise: bool = False
    """Whether frames a window length apart start from the same noise: every window then starts
    from that of the first, in another order, so that what it shows looks alike."""
    frames_per_latent: int = FRAMES_PER_LATENT
    """Frames that a latent frame stands for."""

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First latent frame of each window, ascending."""
        last = self.num_frames - self.length
        if last <= 0:
            return (0,)
        num_gaps = math.ceil(last / (self.length - self.overlap))
        # Halves go up, so that no gap depends on whether its number is even.
        return tuple((2 * last * i + num_gaps) // (2 * num_gaps) for i in range(num_gaps + 1))

    @property
    def num_drawn(self) -> int:
        """Latent frames of noise that are drawn."""
        return min(self.length, self.num_frames) if self.repeats_noise else self.num_frames

    def noise(self, drawn: Tensor) -> Tensor:
        """Noise of all latent frames.

        Args:
            drawn: ``(B, C, num_drawn, H, W)``.
        """
        return drawn[:, :, torch.arange(self.num_frames) % self.num_drawn]

    @cached_property
    def weights(self) -> Tensor:
        """How much each window counts in its frames, ``(num_windows, length)`` fp32.

        Weights rise and fall along sin^2 over the least overlap; those of a frame add up to 1.
        """
        length = min(self.length, self.num_frames)
        places = torch.arange(length, dtype=torch.float64) + 0.5
        nearest = torch.minimum(places, length - places) / max(self.overlap, 1)
        ramp = torch.sin(0.5 * math.pi * nearest.clamp(max=1)) ** 2
        total = torch.zeros(self.num_frames, dtype=torch.float64)
        for start in self.starts:
            total[start : start + length] += ramp
        return torch.stack([ramp / total[s : s + length] for s in self.starts]).float()


def in_windows(
    denoiser_at: Callable[[int], Denoiser],
    windows: Windows,
    *,
    device: torch.device,
    on_window: Callable[[], None] | None = None,
) -> Denoiser:
    """A denoiser of all latents by one that is called for each window.

    Only a window at a time is on the device, so its memory does not grow with the length.

    Args:
        denoiser_at: The denoiser of the window that starts at a latent frame.
        windows: Where they are and how they are blended.
        device: Where windows are evaluated; the latents may be elsewhere, such as on the CPU.
        on_window: Called after each window.
    """
    length = min(windows.length, windows.num_frames)

    def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
        blended = torch.zeros_like(latents)
        sigma = sigma.to(device)
        for start, weights in zip(windows.starts, windows.weights, strict=True):
            span = slice(start, start + length)
            window = latents[:, :, span].to(device).contiguous()
            of_window = denoiser_at(start)(window, sigma).to(latents.device)
            blended[:, :, span] += weights.to(latents.device)[:, None, None] * of_window
            if on_window is not None:
                on_window()
        return blended

    return velocity
