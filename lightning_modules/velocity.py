"""The loss that a backbone and its adapters are trained with (section 3, eq. 1), per sample."""

from typing import Literal

from torch import Tensor

from datamodules.batch import ClipBatch
from musicinfuser.diffusion.flow import (
    interpolate,
    velocity_loss,
    velocity_target,
    with_first_given,
)
from musicinfuser.keyed_random import normal
from musicinfuser.latent_space import normalise, posterior_sample
from musicinfuser.networks.music_model import MusicModel


def noise_of(batch: ClipBatch, purpose: str, *, seed: int) -> Tensor:
    """Gaussian noise in the shape of a batch's latents, each sample's drawn by its index."""
    latents = batch.latent_mean
    return normal(seed, batch.sample_index, purpose, latents.shape[1:], device=latents.device)


def velocity_losses(
    model: MusicModel,
    batch: ClipBatch,
    sigma: Tensor,
    *,
    seed: int,
    purpose: str,
    audio: Tensor | None = None,
    latent_space: Literal["normalised", "authors"] = "normalised",
    first_given: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """The squared error of the velocity per sample.

    Args:
        model: Predicts the velocity.
        batch: Encoded clips.
        sigma: ``(B,)`` noise levels.
        seed: The run's.
        purpose: Separates the noise of training from that of validation.
        audio: ``(B, S, audio width)``; None for no music. Samples whose music the batch says was
            dropped are not conditioned on it either.
        latent_space: As in `ObjectiveSpec`.
        first_given: ``(B,)`` bool, samples whose first latent frame is given: it has no noise and
            does not count; None: no sample's is.
        weights: ``(B, T, H, W)`` of each latent pixel's error; None: all count the same.

    Returns:
        ``(B,)`` fp32.
    """
    noise = noise_of(batch, f"{purpose} noise", seed=seed)
    latents = batch.latent_mean.float()
    if not model.kind.vae.trained_on_means:
        posterior = noise_of(batch, f"{purpose} posterior", seed=seed)
        latents = posterior_sample(latents, batch.latent_logvar.float(), posterior)
    mean, std = batch.latents_mean, batch.latents_std
    if latent_space == "normalised":
        latents = normalise(latents, mean, std)
        target = velocity_target(latents, noise)
    else:
        target = normalise(velocity_target(latents, noise), mean, std)
    levels = sigma
    if first_given is not None:
        levels = with_first_given(sigma, latents.shape[2], first_given)
    predicted = model(
        interpolate(latents, noise, levels), batch.text, model.timestep(levels),
        audio_features=audio, text_lengths=batch.text_lengths, audio_weight=batch.music_weight,
    )  # fmt: skip
    return velocity_loss(predicted, target, first_given=first_given, weights=weights)
