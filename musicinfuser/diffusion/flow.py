"""The flow between latents and noise, with sigma in [0, 1] and 1 = noise.

z_sigma = (1 - sigma) z + sigma eps; the network gives the velocity z - eps. In these terms the
denoiser of eq. 1 is D(z_sigma) = z_sigma + sigma * velocity.
"""

import torch
from torch import Tensor


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(B,)``, or ``(B, T)``, so that it broadcasts over ``like`` ``(B, C, T, H, W)``."""
    if values.dim() == 2:
        return values[:, None, :, None, None]
    return values.reshape(-1, *[1] * (like.dim() - 1))


def with_first_given(sigma: Tensor, num_frames: int, is_given: Tensor | None = None) -> Tensor:
    """Levels of each latent frame, ``(B, T)``: 0 for a first one that is given, no noise at all.

    Args:
        sigma: ``(B,)``.
        num_frames: T.
        is_given: ``(B,)`` bool, whether a sample's first frame is; None: all are.
    """
    levels = sigma[:, None].repeat(1, num_frames)
    if is_given is None:
        levels[:, 0] = 0
    else:
        levels[:, 0] = torch.where(is_given, 0, sigma)
    return levels


def begun_with(first: Tensor | None, latents: Tensor) -> Tensor:
    """Latents ``(B, C, T, H, W)`` with ``first`` ``(B, C, 1, H, W)`` in place of their first."""
    if first is None:
        return latents
    return torch.cat([first.to(latents), latents[:, :, first.shape[2] :]], dim=2)


def interpolate(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """z_sigma for latents and noise ``(B, C, T, H, W)`` at levels ``(B,)`` or ``(B, T)``."""
    sigma = per_sample(sigma, latents)
    return (1 - sigma) * latents + sigma * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """The direction from noise to data, z - eps."""
    return latents - noise


def velocity_loss(
    predicted: Tensor,
    target: Tensor,
    *,
    first_given: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean squared error per sample, ``(B,)``, in fp32.

    Up to the factor sigma^2 this is eq. 1's objective, since D - y = sigma * (predicted - target).

    Args:
        predicted: ``(B, C, T, H, W)``.
        target: Likewise.
        first_given: ``(B,)`` bool, samples whose first latent frame is given and does not count;
            None: all frames of all count.
        weights: ``(B, T, H, W)``, what each latent pixel counts. The mean is over the weights, so
            those of a sample count as if their mean were 1; None: all count the same.
    """
    squared = (predicted.float() - target.float()).square()
    if weights is not None:
        counts = weights.float().clone()
        if first_given is not None:
            counts[:, 0] *= (~first_given).to(counts)[:, None, None]
        of_pixels = squared.mean(dim=1) * counts
        return of_pixels.flatten(1).sum(dim=1) / counts.flatten(1).sum(dim=1)
    if first_given is None:
        return squared.flatten(1).mean(dim=1)
    of_frames = squared.mean(dim=(1, 3, 4))
    counts = torch.ones_like(of_frames)
    counts[:, 0] = (~first_given).to(counts)
    return (of_frames * counts).sum(dim=1) / counts.sum(dim=1)
