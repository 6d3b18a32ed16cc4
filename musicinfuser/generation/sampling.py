"""Latents of encoded conditions: the one way to sample."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from musicinfuser import keyed_random
from musicinfuser.clip_size import latent_shape
from musicinfuser.diffusion.guidance import (
    Denoiser,
    layer_guidance,
    music_guidance,
    once_per_step,
    text_guidance,
)
from musicinfuser.diffusion.sampler import euler_sample, linear_quadratic_sigmas
from musicinfuser.diffusion.windows import Windows, in_windows
from musicinfuser.generation.latent_checkpoint import LatentCheckpoint
from musicinfuser.generation.settings import LayerGuidance, SamplingSpec
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.music_mochi import MusicMochi

AudioConditioning = Tensor | Mapping[int, Tensor]
"""Audio features ``(B, S, audio width)``, or those of each window by its first latent frame."""


@torch.no_grad()
def sample_latents(
    model: MusicMochi,
    *,
    text: Tensor,
    negative: Tensor,
    audio: AudioConditioning | None,
    request: GenerationRequest,
    sampling: SamplingSpec,
    device: torch.device,
    by_layer: LayerGuidance | None = None,
    windows: Windows | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
    on_window: Callable[[], None] | None = None,
    checkpoint: LatentCheckpoint | None = None,
) -> Tensor:
    """Normalised latents ``(1, C, T, H, W)`` fp32 for encoded conditions.

    Args:
        model: The adapted transformer.
        text: ``(L, text width)`` features of the prompt.
        negative: ``(L', text width)`` features of the negative prompt; both may be empty.
        audio: ``(1, S, audio width)``, for both branches (authors' code), or that for every
            window; None switches ZICA off.
        request: Seed and size.
        sampling: Steps and guidance.
        device: Where to compute.
        by_layer: Further guidance away from the model without a block; None for none.
        windows: Denoise in windows, the whole of the latents staying on the CPU; None for one pass.
        progress: Wraps the range of steps.
        on_window: Called after each window of each step.
        checkpoint: Where the latents go after each step, and where an earlier call that was cut
            off left them: sampling goes on from there.
    """
    channels, num_frames, *area = latent_shape(
        request.num_frames,
        request.height,
        request.width,
        channels=model.backbone.config.in_channels,
    )
    # Drawn on the CPU so that a seed means the same picture on every device; no draw depends on how
    # many windows there are.
    stream = keyed_random.generator(request.seed, 0, "sampling noise")
    num_drawn = num_frames if windows is None else windows.num_drawn
    noise = torch.randn(1, channels, num_drawn, *area, generator=stream)
    noise = noise.to(device) if windows is None else windows.noise(noise)
    conditions = Conditions(text[None].to(device), negative[None].to(device), audio)
    first_step, latents = (0, noise) if checkpoint is None else checkpoint.resume(noise)
    return denoise(
        model, conditions, latents, sampling, first_step=first_step,
        by_layer=by_layer, windows=windows, progress=progress, on_window=on_window,
        on_step_end=None if checkpoint is None else checkpoint.save,
    )  # fmt: skip


@dataclass
class Conditions:
    """What the clips of a batch are conditioned on; a callback may change it between steps."""

    text: Tensor
    """``(B, L, text width)`` features of the prompts, right-padded."""
    negative: Tensor
    """``(B, L', text width)`` features of the negative prompts; both may be empty."""
    audio: AudioConditioning | None
    """``(B, S, audio width)``, for both branches (authors' code), or that for every window,
    on any device; None switches ZICA off."""
    text_lengths: tuple[int, ...] | None = None
    """Valid tokens of each prompt; None is all."""
    negative_lengths: tuple[int, ...] | None = None
    """Valid tokens of each negative prompt; None is all."""

    def audio_from(self, start: int) -> Tensor | None:
        """Audio features of the window that starts at a latent frame, where the text is."""
        if self.audio is None or isinstance(self.audio, Tensor):
            return self.audio
        return self.audio[start].to(self.text.device)


@torch.no_grad()
def denoise(
    model: MusicMochi,
    conditions: Conditions,
    noise: Tensor,
    sampling: SamplingSpec,
    *,
    by_layer: LayerGuidance | None = None,
    windows: Windows | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
    on_window: Callable[[], None] | None = None,
    first_step: int = 0,
    on_step_end: Callable[[int, Tensor], Tensor | None] | None = None,
    lora_scale: float = 1.0,
) -> Tensor:
    """Normalised latents of a batch, of the shape of ``noise``, fp32: the one way to sample.

    Args:
        model: The adapted transformer.
        conditions: Looked at anew in each step.
        noise: ``(B, C, T, H, W)``, on the model's device; with windows anywhere, where the result
            is too.
        sampling: Steps and guidance; prompts are in ``conditions``.
        by_layer: Further guidance away from the model without a block; None for none.
        windows: Denoise in windows; None for one pass.
        progress: Wraps the range of steps.
        on_window: Called after each window of each step.
        first_step: As in `euler_sample`.
        on_step_end: As in `euler_sample`.
        lora_scale: Times what each LoRA counts.
    """

    def denoiser(
        start: int,
        *,
        is_negative: bool = False,
        drop_audio: bool = False,
        skip_layers: tuple[int, ...] = (),
    ) -> Denoiser:
        def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
            features = conditions.negative if is_negative else conditions.text
            lengths = conditions.negative_lengths if is_negative else conditions.text_lengths
            return model(
                latents,
                features,
                (1 - sigma) * 1000,
                audio_features=None if drop_audio else conditions.audio_from(start),
                text_lengths=lengths or (features.shape[1],) * len(features),
                skip_layers=skip_layers,
                lora_scale=lora_scale,
            ).float()

        return velocity

    def guided(start: int) -> Denoiser:
        conditional = once_per_step(denoiser(start))
        by_text_and_music = music_guidance(
            text_guidance(conditional, denoiser(start, is_negative=True), sampling.guidance_scale),
            conditional,
            denoiser(start, drop_audio=True),
            sampling.music_guidance_scale if conditions.audio is not None else 1.0,
        )
        if by_layer is None:
            return by_text_and_music
        without_layer = denoiser(start, skip_layers=(by_layer.layer,))
        return layer_guidance(by_text_and_music, conditional, without_layer, by_layer.scale)

    velocity = (
        guided(0)
        if windows is None
        else in_windows(guided, windows, device=conditions.text.device, on_window=on_window)
    )
    sigmas = linear_quadratic_sigmas(sampling.num_steps, threshold=sampling.linear_threshold)
    return euler_sample(
        velocity, noise, sigmas, first_step=first_step, progress=progress, on_step_end=on_step_end
    )
