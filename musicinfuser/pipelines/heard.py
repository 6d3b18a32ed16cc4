"""The sound a call of the pipeline brings, as wav2vec 2.0 hears it."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from musicinfuser.generation import cut_span
from musicinfuser.media.audio import clip_audio_seconds, loudness_dbfs, read_audio, resample
from musicinfuser.media.errors import MediaError
from musicinfuser.networks.encoders import AUDIO_RATE_HZ

Sound = str | Path | tuple[np.ndarray | Tensor, int]
"""A file FFmpeg decodes, or samples (S,) or (channels, S) in [-1, 1] with their rate in Hz."""

FPS = 30.0
# What 16 bits can hold lies above -96; music that is meant to be heard far above this.
SILENCE_DBFS = -80.0


def heard_waveforms(
    audio: Sound | Sequence[Sound], *, num_clips: int, num_frames: int, start_seconds: float
) -> Tensor:
    """What each clip hears, ``(num_clips, num_samples)`` at 16 kHz over the authors' span.

    Args:
        audio: One sound for all clips, or a list with one for each.
        num_clips: Clips of the batch.
        num_frames: Frames per clip.
        start_seconds: Where in the sound the clips begin.

    Raises:
        MediaError: A sound cannot be read, is silent, or ends before the clip does.
        ValueError: Not one sound per clip.
    """
    if not isinstance(audio, list):
        one = _heard(audio, num_frames, start_seconds)  # type: ignore[arg-type]
        return one.expand(num_clips, -1)
    if len(audio) != num_clips:
        raise ValueError(
            f"audio names {len(audio)} sounds for {num_clips} prompts; give one, or one for each."
        )
    return torch.stack([_heard(sound, num_frames, start_seconds) for sound in audio])


def _heard(audio: Sound, num_frames: int, start_seconds: float) -> Tensor:
    name, waveform = _at_model_rate(audio)
    span_seconds = clip_audio_seconds(num_frames, fps=FPS)
    span, _ = cut_span(name, waveform, start_seconds, span_seconds)
    left_seconds = len(waveform) / AUDIO_RATE_HZ - start_seconds
    # The span is longer than the clip by up to 0.14 s, which may be missing.
    if left_seconds < num_frames / FPS:
        most = max((math.floor(left_seconds * FPS + 1e-6) - 1) // 6, 0) * 6 + 1
        raise MediaError(
            f"{name} has {left_seconds:.2f} s of sound from second {start_seconds:.2f} on, but "
            f"{num_frames} frames last {num_frames / FPS:.2f} s; ask for num_frames={most} or "
            "fewer, or start earlier."
        )
    if loudness_dbfs(span) < SILENCE_DBFS:
        raise MediaError(
            f"{name} is silent from second {start_seconds:.2f} on for {span_seconds:.2f} s; choose "
            "another start, or give audio=None for a video without music."
        )
    return span


def _at_model_rate(audio: Sound) -> tuple[str, Tensor]:
    """A sound's name and its samples at 16 kHz, channels averaged."""
    if isinstance(audio, str | Path):
        return str(audio), read_audio(audio, rate_hz=AUDIO_RATE_HZ)
    name = "the given sound"
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise ValueError("audio is a path, (array, rate), a list of these, or None.")
    samples = torch.as_tensor(audio[0]).detach().cpu()
    if not samples.is_floating_point() or samples.ndim not in (1, 2):
        raise ValueError(
            f"{name} is {samples.dtype} of shape {tuple(samples.shape)}; it must be floats in "
            "[-1, 1] of shape (samples,) or (channels, samples)."
        )
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise ValueError(
            f"{name} has shape {tuple(samples.shape)}; channels come first, so transpose it."
        )
    mono = torch.atleast_2d(samples).float().mean(dim=0)
    if not mono.isfinite().all():
        raise MediaError(f"{name} holds values that are no numbers.")
    return name, resample(mono, from_hz=int(audio[1]), to_hz=AUDIO_RATE_HZ)
