"""The sound a call of the pipeline brings, as its adapter was trained to hear it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musicinfuser.clip_size import frames_within
from musicinfuser.diffusion.windows import Windows
from musicinfuser.errors import UserError
from musicinfuser.generation import AudioConditioning, audio_by_windows, audio_seconds, cut_span
from musicinfuser.media.audio import SILENCE_DBFS, loudness_dbfs, read_audio, resample
from musicinfuser.media.errors import MediaError
from musicinfuser.networks.encoders import AUDIO_RATE_HZ, encode_waveforms
from musicinfuser.networks.log_mel import log_mel
from musicinfuser.networks.origin import LOG_MEL

Sound = str | Path | tuple[np.ndarray | Tensor, int]
"""A file FFmpeg decodes, or samples (S,) or (channels, S) in [-1, 1] with their rate in Hz."""

FPS = 30.0
NUM_FRAMES = 73
"""Where a call names no length (authors' training clips)."""


def frames_asked(
    num_frames: int | None, num_seconds: float | None, audio: Any, start_seconds: float
) -> int:
    """Frames of a call's videos.

    Args:
        num_frames: As given to the call.
        num_seconds: As given; infinite is up to the end of the shortest sound.
        audio: As given.
        start_seconds: Where in the sound the videos begin.

    Raises:
        ValueError: Both are given, no length, or no sound to tell an infinite one by.
        MediaError: A sound cannot be read.
    """
    if num_seconds is None:
        return NUM_FRAMES if num_frames is None else num_frames
    if num_frames is not None:
        raise UserError(
            f"num_seconds is {num_seconds:g}, but num_frames is {num_frames} too; give one of them."
        )
    if not num_seconds > 0:
        raise UserError(f"num_seconds is {num_seconds}; give a number above 0.")
    if math.isinf(num_seconds):
        if audio is None:
            raise UserError("num_seconds is infinite, but there is no audio; give a number.")
        sounds = audio if isinstance(audio, list) else [audio]
        lengths = [len(_at_model_rate(sound)[1]) / AUDIO_RATE_HZ for sound in sounds]
        num_seconds = min(lengths, default=0.0) - start_seconds
    return frames_within(num_seconds, fps=FPS)


class Hearing:
    """What a call of `MusicInfuserPipeline` does with its audio."""

    def _heard(
        self: Any,
        audio: Any,
        num_clips: int,
        num_frames: int,
        start_seconds: float,
        windows: Windows | None,
    ) -> Tensor | None:
        if audio is None:
            return None
        needs_encoder = self.zica is None or self.zica.trained_with.audio.features != LOG_MEL
        if needs_encoder and None in (self.zica, self.audio_encoder, self.feature_extractor):
            raise UserError(
                "this pipeline has no music adapter; load it with "
                "from_pretrained(base, adapter=FOLDER), or give audio=None."
            )
        return heard_waveforms(
            audio,
            num_clips=num_clips,
            num_frames=num_frames,
            start_seconds=start_seconds,
            windows=windows,
        )

    def _features(
        self: Any, heard: Tensor, num_videos: int, windows: Windows | None
    ) -> AudioConditioning:
        """Features of every video of each prompt, or those for each window."""
        trained, device = self.zica.trained_with.audio, self._execution_device

        def encode(waveforms: Tensor) -> Tensor:
            if trained.features == LOG_MEL:
                features = log_mel(waveforms.to(device), rate_hz=AUDIO_RATE_HZ)
            else:
                features = encode_waveforms(
                    self.audio_encoder,
                    self.feature_extractor,
                    waveforms,
                    device=device,
                    layer=trained.layer,
                )
            return features.repeat_interleave(num_videos, dim=0)

        return audio_by_windows(encode, heard, windows, fps=FPS)


def heard_waveforms(
    audio: Sound | Sequence[Sound],
    *,
    num_clips: int,
    num_frames: int,
    start_seconds: float,
    windows: Windows | None = None,
) -> Tensor:
    """What each clip hears, ``(num_clips, num_samples)`` at 16 kHz over `audio_seconds`.

    Args:
        audio: One sound for all clips, or a list with one for each.
        num_clips: Clips of the batch.
        num_frames: Frames per clip.
        start_seconds: Where in the sound the clips begin.
        windows: In which they will be sampled; None for one pass.

    Raises:
        MediaError: A sound cannot be read, is silent, or ends before the clip does.
        ValueError: Not one sound per clip.
    """
    if not isinstance(audio, list):
        one = _heard(audio, num_frames, start_seconds, windows)  # type: ignore[arg-type]
        return one.expand(num_clips, -1)
    if len(audio) != num_clips:
        raise UserError(
            f"audio names {len(audio)} sounds for {num_clips} prompts; give one, or one for each."
        )
    return torch.stack([_heard(sound, num_frames, start_seconds, windows) for sound in audio])


def _heard(audio: Sound, num_frames: int, start_seconds: float, windows: Windows | None) -> Tensor:
    name, waveform = _at_model_rate(audio)
    span_seconds = audio_seconds(num_frames, fps=FPS, windows=windows)
    span, _ = cut_span(name, waveform, start_seconds, span_seconds)
    left_seconds = len(waveform) / AUDIO_RATE_HZ - start_seconds
    # The span is longer than the clip by up to 0.14 s, which may be missing.
    if left_seconds < num_frames / FPS:
        most = frames_within(left_seconds, fps=FPS)
        raise MediaError(
            f"{name} has {left_seconds:.2f} s of sound from second {start_seconds:.2f} on, but "
            f"{num_frames} frames last {num_frames / FPS:.2f} s; ask for num_frames={most} or "
            "fewer, for num_seconds=math.inf to end with the sound, or start earlier."
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
        raise UserError("audio is a path, (array, rate), a list of these, or None.")
    samples = torch.as_tensor(audio[0]).detach().cpu()
    if not samples.is_floating_point() or samples.ndim not in (1, 2):
        raise UserError(
            f"{name} is {samples.dtype} of shape {tuple(samples.shape)}; it must be floats in "
            "[-1, 1] of shape (samples,) or (channels, samples)."
        )
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise UserError(
            f"{name} has shape {tuple(samples.shape)}; channels come first, so transpose it."
        )
    mono = torch.atleast_2d(samples).float().mean(dim=0)
    if not mono.isfinite().all():
        raise MediaError(f"{name} holds values that are no numbers.")
    return name, resample(mono, from_hz=int(audio[1]), to_hz=AUDIO_RATE_HZ)
