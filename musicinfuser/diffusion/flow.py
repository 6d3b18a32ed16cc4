"""The flow between latents and noise, with sigma in [0, 1] and 1 = noise.

z_sigma = (1 - sigma) z + sigma eps; the network predicts the velocity z - eps (Mochi). In these
terms the denoiser of eq. 1 is D(z_sigma) = z_sigma + sigma * velocity.
"""

from torch import Tensor


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(B,)`` so that it broadcasts over ``like`` ``(B, ...)``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def interpolate(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """z_sigma for latents and noise ``(B, C, T, H, W)`` at levels ``(B,)``."""
    sigma = per_sample(sigma, latents)
    return (1 - sigma) * latents + sigma * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """The direction from noise to data, z - eps."""
    return latents - noise


def velocity_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per sample, ``(B,)``, in fp32.

    Up to the factor sigma^2 this is eq. 1's objective, since D - y = sigma * (predicted - target).
    """
    return (predicted.float() - target.float()).square().flatten(1).mean(dim=1)
