"""Between the VAE's units and the normalised space the transformer works in."""

import torch
from torch import Tensor


def normalise(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """VAE units to the space the transformer was trained in: zero mean, unit spread per channel.

    Args:
        latents: ``(B, C, T, H, W)``.
        mean: ``(C,)``, the VAE config's ``latents_mean``.
        std: ``(C,)``, ``latents_std`` (divided by ``scaling_factor``).
    """
    shape = (1, -1, 1, 1, 1)
    return (latents - mean.reshape(shape)) / std.reshape(shape)


def denormalise(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    shape = (1, -1, 1, 1, 1)
    return latents * std.reshape(shape) + mean.reshape(shape)


def posterior_sample(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """A draw from the VAE's Gaussian posterior, in VAE units.

    The log variance is clamped to [-30, 20] as diffusers' distribution does.
    """
    return mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise
