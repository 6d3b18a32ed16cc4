"""From music and a prompt to a clip: shared by predict, the sampling callback and pipelines."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from musicinfuser import keyed_random
from musicinfuser.cells import NOTHING, Cell
from musicinfuser.clip_size import check_clip_size, latent_shape
from musicinfuser.diffusion.guidance import (
    Denoiser,
    layer_guidance,
    music_guidance,
    once_per_step,
    text_guidance,
)
from musicinfuser.diffusion.sampler import (
    LINEAR_THRESHOLD,
    euler_sample,
    linear_quadratic_sigmas,
)
from musicinfuser.media.audio import clip_audio_seconds, fit_length, read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.networks.encoders import AUDIO_RATE_HZ, Encoders
from musicinfuser.networks.music_mochi import MusicMochi
from musicinfuser.networks.out_of_memory import named_out_of_memory

# Rate of the sound that goes into the file; the model hears 16 kHz.
OUTPUT_RATE_HZ = 44_100
SAMPLING_REMEDY = (
    "add --config configs/profiles/40gb.yaml or configs/profiles/24gb.yaml, or ask for fewer frames"
)
DECODING_REMEDY = "set encoders.vae_tiling to true, or ask for fewer frames"


@dataclass(frozen=True)
class SamplingSpec:
    """How latents are sampled."""

    num_steps: int
    """Euler steps (authors' code: 64)."""
    guidance_scale: float
    """Text guidance (section 5.1: 6.0)."""
    music_guidance_scale: float = 1.0
    """Guidance away from the same prompt without music (ours); 1 is none, and costs nothing."""
    negative_prompt: str = ""
    """Prompt of the unconditional branch; empty means zero text tokens."""
    linear_threshold: float = LINEAR_THRESHOLD
    """Noise removed in the linear half of the schedule (0.025)."""
    fps: float = 30.0
    """Frame rate of the model's videos."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.num_steps < 1:
            raise ValueError(f"sampling.num_steps is {self.num_steps}; it must be at least 1.")
        if self.music_guidance_scale < 0:
            raise ValueError(
                f"sampling.music_guidance_scale is {self.music_guidance_scale}; use 0 or more."
            )
        if self.guidance_scale < 0:
            raise ValueError(f"sampling.guidance_scale is {self.guidance_scale}; use 0 or more.")


@dataclass(frozen=True)
class LayerGuidance:
    """Guidance away from the same model without one block (section 4.1, eq. 4)."""

    layer: int
    """The block that is an identity for video and text, counted from 0."""
    scale: float
    """s in `layer_guidance`; 0 is none, and costs nothing."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.scale < 0:
            raise ValueError(f"the scale of layer guidance is {self.scale}; use 0 or more.")


@dataclass(frozen=True)
class GeneratedClip:
    """A finished clip with what made it."""

    cell: Cell
    """What was asked, with the track offset that was used."""
    frames: Tensor
    """``(T, H, W, 3)`` uint8."""
    waveform: Tensor
    """``(num_samples,)`` fp32 at ``OUTPUT_RATE_HZ``, zero-padded where the track was too short."""
    padded_seconds: float
    """Silence added because the track, or what was heard in its place, ended before the clip."""
    fps: float


def generate(
    model: MusicMochi,
    encoders: Encoders,
    cell: Cell,
    sampling: SamplingSpec,
    *,
    device: torch.device,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> GeneratedClip:
    """Generate one clip. Deterministic: all randomness comes from the cell's seed.

    Args:
        model: The adapted transformer, on ``device``.
        encoders: Frozen encoders; moved to ``device`` while used.
        cell: Track, prompt, seed, size, and what is heard if not the track.
        sampling: Steps and guidance.
        device: Where to compute; run under autocast for a bf16 backbone.
        progress: Wraps the range of sampling steps.

    Raises:
        MediaError: The track or what is heard cannot be read, or has no sound at its offset.
        ValueError: A size Mochi cannot take.
        OutOfMemoryError: The device's memory is too small; says which option to use.
    """
    check_clip_size(cell.num_frames, cell.height, cell.width)
    cell, heard, waveform, padded_seconds = read_track(cell, fps=sampling.fps)
    text, negative = encoders.encode_captions(
        [cell.prompt, sampling.negative_prompt], device=device
    )
    audio = None if heard is None else encoders.encode_audio(heard[None], device=device)
    with named_out_of_memory("sampling", SAMPLING_REMEDY):
        latents = sample_latents(
            model, text=text, negative=negative, audio=audio, cell=cell, sampling=sampling,
            device=device, progress=progress,
        )  # fmt: skip
    with named_out_of_memory("decoding the latents", DECODING_REMEDY):
        frames = encoders.decode_video(latents)[0]
    return GeneratedClip(cell, frames, waveform, padded_seconds, sampling.fps)


@torch.no_grad()
def sample_latents(
    model: MusicMochi,
    *,
    text: Tensor,
    negative: Tensor,
    audio: Tensor | None,
    cell: Cell,
    sampling: SamplingSpec,
    device: torch.device,
    by_layer: LayerGuidance | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> Tensor:
    """Normalised latents ``(1, C, T, H, W)`` fp32 for encoded conditions.

    Args:
        model: The adapted transformer.
        text: ``(L, text width)`` features of the prompt.
        negative: ``(L', text width)`` features of the negative prompt; both may be empty.
        audio: ``(1, S, audio width)``, heard by both branches (authors' code); None switches
            ZICA off.
        cell: Seed and size.
        sampling: Steps and guidance.
        device: Where to compute.
        by_layer: Further guidance away from the model without a block; None for none.
        progress: Wraps the range of steps.
    """
    shape = latent_shape(
        cell.num_frames, cell.height, cell.width, channels=model.backbone.config.in_channels
    )
    # Drawn on the CPU so that a seed means the same picture on every device.
    stream = keyed_random.generator(cell.seed, 0, "sampling noise")
    noise = torch.randn(1, *shape, generator=stream).to(device)
    conditions = Conditions(text[None].to(device), negative[None].to(device), audio)
    return denoise(model, conditions, noise, sampling, by_layer=by_layer, progress=progress)


@dataclass
class Conditions:
    """What the clips of a batch are to show and hear; a callback may change it between steps."""

    text: Tensor
    """``(B, L, text width)`` features of the prompts, right-padded."""
    negative: Tensor
    """``(B, L', text width)`` features of the negative prompts; both may be empty."""
    audio: Tensor | None
    """``(B, S, audio width)``, heard by both branches (authors' code); None switches ZICA off."""
    text_lengths: tuple[int, ...] | None = None
    """Valid tokens of each prompt; None is all."""
    negative_lengths: tuple[int, ...] | None = None
    """Valid tokens of each negative prompt; None is all."""


@torch.no_grad()
def denoise(
    model: MusicMochi,
    conditions: Conditions,
    noise: Tensor,
    sampling: SamplingSpec,
    *,
    by_layer: LayerGuidance | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
    on_step_end: Callable[[int, Tensor], Tensor | None] | None = None,
    lora_scale: float = 1.0,
) -> Tensor:
    """Normalised latents of a batch, of the shape of ``noise``, fp32: the one way to sample.

    Args:
        model: The adapted transformer.
        conditions: Looked at anew in each step.
        noise: ``(B, C, T, H, W)``, on the model's device.
        sampling: Steps and guidance; prompts are in ``conditions``.
        by_layer: Further guidance away from the model without a block; None for none.
        progress: Wraps the range of steps.
        on_step_end: As in `euler_sample`.
        lora_scale: Times what each LoRA counts.
    """

    def denoiser(
        *, is_negative: bool = False, is_deaf: bool = False, skip_layers: tuple[int, ...] = ()
    ) -> Denoiser:
        def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
            features = conditions.negative if is_negative else conditions.text
            lengths = conditions.negative_lengths if is_negative else conditions.text_lengths
            return model(
                latents,
                features,
                (1 - sigma) * 1000,
                audio_features=None if is_deaf else conditions.audio,
                text_lengths=lengths or (features.shape[1],) * len(features),
                skip_layers=skip_layers,
                lora_scale=lora_scale,
            ).float()

        return velocity

    conditional = once_per_step(denoiser())
    guided = music_guidance(
        text_guidance(conditional, denoiser(is_negative=True), sampling.guidance_scale),
        conditional,
        denoiser(is_deaf=True),
        sampling.music_guidance_scale if conditions.audio is not None else 1.0,
    )
    if by_layer is not None:
        without_layer = denoiser(skip_layers=(by_layer.layer,))
        guided = layer_guidance(guided, conditional, without_layer, by_layer.scale)
    sigmas = linear_quadratic_sigmas(sampling.num_steps, threshold=sampling.linear_threshold)
    return euler_sample(guided, noise, sigmas, progress=progress, on_step_end=on_step_end)


def read_track(cell: Cell, *, fps: float) -> tuple[Cell, Tensor | None, Tensor, float]:
    """The sound of a cell.

    Returns:
        The cell with its offset settled; ``(num_samples,)`` at 16 kHz for the model, over the
        authors' span, from the track or from what is heard in its place, None if that is nothing;
        ``(num_samples,)`` of the track at `OUTPUT_RATE_HZ` for the file, as long as the video; and
        the seconds of silence that were added at the end (of the two sounds, the more).

    Raises:
        MediaError: The track or what is heard cannot be read or ends before its offset.
    """
    span_seconds = clip_audio_seconds(cell.num_frames, fps=fps)
    track = read_audio(cell.track, rate_hz=AUDIO_RATE_HZ)
    if cell.track_offset_seconds is None:
        # Authors' code: a random start inside the track.
        stream = keyed_random.generator(cell.seed, cell.track_name, "track offset")
        room = max(len(track) / AUDIO_RATE_HZ - span_seconds, 0.0)
        offset = round(torch.rand((), generator=stream).item() * room, 3)
        cell = replace(cell, track_offset_seconds=offset)
    assert cell.track_offset_seconds is not None
    heard, padded_seconds = cut_span(cell.track, track, cell.track_offset_seconds, span_seconds)
    if cell.heard_file is not None:
        other = read_audio(cell.heard_file, rate_hz=AUDIO_RATE_HZ)
        other_offset = cell.heard_offset_seconds
        if other_offset is None:
            other_offset = cell.track_offset_seconds
        heard, missing_seconds = cut_span(cell.heard_file, other, other_offset, span_seconds)
        padded_seconds = max(padded_seconds, missing_seconds)
    video_seconds = cell.num_frames / fps
    sound = read_audio(
        cell.track,
        rate_hz=OUTPUT_RATE_HZ,
        start_seconds=cell.track_offset_seconds,
        duration_seconds=video_seconds,
    )
    sound = fit_length(sound, round(video_seconds * OUTPUT_RATE_HZ))
    return cell, None if cell.heard == NOTHING else heard, sound, padded_seconds


def cut_span(
    path: str, sound: Tensor, offset_seconds: float, span_seconds: float
) -> tuple[Tensor, float]:
    """A span of a sound at 16 kHz, and the seconds of silence added at its end."""
    seconds = len(sound) / AUDIO_RATE_HZ
    if offset_seconds >= seconds:
        raise MediaError(
            f"{path} lasts {seconds:.2f} s, but the clip is to start at {offset_seconds:.2f} s; "
            "choose an earlier start."
        )
    start, num_samples = round(offset_seconds * AUDIO_RATE_HZ), round(span_seconds * AUDIO_RATE_HZ)
    missing_seconds = max(start + num_samples - len(sound), 0) / AUDIO_RATE_HZ
    return fit_length(sound[start : start + num_samples], num_samples), missing_seconds
