"""What the prompts and the sound of a call become before the sampler takes them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from musicinfuser.clip_size import LatentGeometry, frames_within
from musicinfuser.diffusion.windows import Windows
from musicinfuser.errors import UserError
from musicinfuser.generation import (
    AudioConditioning,
    Conditions,
    audio_by_windows,
    audio_seconds,
    cut_span,
)
from musicinfuser.media.audio import SILENCE_DBFS, loudness_dbfs, read_audio, resample
from musicinfuser.media.errors import MediaError
from musicinfuser.media.pictures import fitted_picture, read_picture
from musicinfuser.networks.audio_encoder import AudioEncoder
from musicinfuser.networks.combined_audio import audio_encoder_again
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.setting_checks import check_number

Sound = str | Path | tuple[np.ndarray | Tensor, int]
"""A file FFmpeg decodes, or samples (S,) or (channels, S) in [-1, 1] with their rate in Hz."""

Picture = str | Path | Image.Image
"""A file that Pillow reads, or a picture of its."""

_LENGTH_RATE_HZ = 16_000
"""At which sounds are read to measure their length."""


def frames_asked(
    num_frames: int | None,
    num_seconds: float | None,
    audio: Any,
    start_seconds: float,
    *,
    usual: int,
    fps: float,
    geometry: LatentGeometry,
) -> int:
    """Frames of a call's videos; infinite seconds are up to the end of the shortest sound.

    ``usual`` are those of a call that names no length; ``fps`` and ``geometry`` are the model's.

    Raises:
        UserError: Both are given, no length, or no sound to tell an infinite one by.
        MediaError: A sound cannot be read.
    """
    if num_seconds is None:
        return usual if num_frames is None else num_frames
    if num_frames is not None:
        raise UserError(
            f"num_seconds is {num_seconds:g}, but num_frames is {num_frames} too; give one of them."
        )
    check_number("num_seconds", num_seconds, above=0, may_be_infinite=True)
    if math.isinf(num_seconds):
        if audio is None:
            raise UserError("num_seconds is infinite, but there is no audio; give a number.")
        sounds = audio if isinstance(audio, list) else [audio]
        lengths = [len(mono(s, _LENGTH_RATE_HZ)[1]) / _LENGTH_RATE_HZ for s in sounds]
        num_seconds = min(lengths, default=0.0) - start_seconds
    return frames_within(num_seconds, fps=fps, geometry=geometry)


def first_pictures(
    image: Picture | list[Picture], *, num_prompts: int, height: int, width: int
) -> Tensor:
    """Pictures that videos begin with, as `read_picture` has them, ``(num_prompts, H, W, 3)``.

    Raises:
        UserError: There are not as many as prompts.
        MediaError: One cannot be read or used.
    """
    images = image if isinstance(image, list) else [image] * num_prompts
    if len(images) != num_prompts:
        raise UserError(f"there are {len(images)} images for {num_prompts} prompts; give one each.")
    found = []
    for each in images:
        if isinstance(each, Image.Image):
            found.append(fitted_picture(each, height=height, width=width))
        elif isinstance(each, str | Path):
            found.append(read_picture(each, height=height, width=width))
        else:
            raise UserError(
                "image is a path, a picture of Pillow's, or a list of these, one for each prompt, "
                f"not {type(each).__name__}."
            )
    return torch.stack(found)


class ConditionsMixin:
    """What a call of a pipeline does with its audio."""

    def _audio_encoder(self: Any) -> AudioEncoder:
        """That of the adapter, with this pipeline's parts."""
        trained = None if self.zica is None else self.zica.trained_with.audio
        given = None
        if trained is None or trained.of_transformers is not None:
            if trained is None or self.audio_encoder is None or self.feature_extractor is None:
                raise UserError(
                    "this pipeline has no music adapter; load it with "
                    "from_pretrained(base, adapter=FOLDER), or give audio=None."
                )
            given = TransformersAudio(
                layer=trained.of_transformers.layer,
                model=self.audio_encoder,
                extractor=self.feature_extractor,
            )
        return audio_encoder_again(trained, given=given)

    def _features(
        self: Any,
        encoder: AudioEncoder,
        sounds: list[Tensor],
        num_videos: int,
        num_frames: int,
        start_seconds: float,
        windows: Windows | None,
    ) -> AudioConditioning:
        """Features for every video of each prompt, or those for each window."""
        device, rate_hz = self._execution_device, encoder.rate_hz

        def encode(sound: Tensor, first: int, num_samples: int) -> Tensor:
            features = encoder.encode_span(sound, first, num_samples, device=device)
            return features.repeat_interleave(num_videos, dim=0)

        for part in encoder.parts:
            if part.module is not None and part.module is not self.audio_encoder:
                part.module.to(device)
        # Sounds that have not the same around them are encoded by themselves.
        together = len({len(sound) for sound in sounds}) == 1
        batches = [torch.stack(sounds)] if together else [sound[None] for sound in sounds]
        found = [
            audio_by_windows(
                encode, sound, windows, fps=self.fps, rate_hz=rate_hz,
                first=round(min(start_seconds, encoder.context_seconds) * rate_hz),
                span_seconds=audio_seconds(num_frames, fps=self.fps, windows=windows),
            )
            for sound in batches
        ]  # fmt: skip
        if windows is None:
            return torch.cat([of for of in found if isinstance(of, Tensor)])
        of_windows = [of for of in found if not isinstance(of, Tensor)]
        return {start: torch.cat([of[start] for of in of_windows]) for start in windows.starts}


def waveforms(
    audio: Sound | Sequence[Sound],
    *,
    rate_hz: int,
    num_clips: int,
    num_frames: int,
    start_seconds: float,
    fps: float,
    geometry: LatentGeometry,
    windows: Windows | None = None,
    context_seconds: float = 0.0,
) -> list[Tensor]:
    """The sound of each clip, ``(num_samples,)`` over `audio_seconds` and the context.

    ``audio`` is one sound for all clips or a list with one for each; ``windows`` are those in which
    they will be sampled, None for one pass; ``context_seconds`` as `cut_span`'s.

    Raises:
        MediaError: A sound cannot be read, is silent, or ends before the clip does.
        UserError: Not one sound per clip.
    """
    if isinstance(audio, list) and len(audio) != num_clips:
        raise UserError(
            f"audio names {len(audio)} sounds for {num_clips} prompts; give one, or one for each."
        )
    sounds = audio if isinstance(audio, list) else [audio]
    found = [
        _span(sound, rate_hz, num_frames, start_seconds, windows, context_seconds, fps, geometry)
        for sound in sounds
    ]
    return found if len(found) == num_clips else found * num_clips


def _span(
    audio: Any, rate_hz: int, num_frames: int, start_seconds: float, windows: Windows | None,
    context_seconds: float, fps: float, geometry: LatentGeometry,
) -> Tensor:  # fmt: skip
    name, waveform = mono(audio, rate_hz)
    span_seconds = audio_seconds(num_frames, fps=fps, windows=windows)
    span, _ = cut_span(name, waveform, start_seconds, span_seconds, rate_hz=rate_hz)
    left_seconds = len(waveform) / rate_hz - start_seconds
    # The span is longer than the clip by up to 0.14 s, which may be missing.
    if left_seconds < num_frames / fps:
        most = frames_within(left_seconds, fps=fps, geometry=geometry)
        raise MediaError(
            f"{name} has {left_seconds:.2f} s of sound from second {start_seconds:.2f} on, but "
            f"{num_frames} frames last {num_frames / fps:.2f} s; ask for num_frames={most} or "
            "fewer, for num_seconds=math.inf to end with the sound, or start earlier."
        )
    if loudness_dbfs(span) < SILENCE_DBFS:
        raise MediaError(
            f"{name} is silent from second {start_seconds:.2f} on for {span_seconds:.2f} s; choose "
            "another start, or give audio=None for a video without music."
        )
    whole, _ = cut_span(
        name,
        waveform,
        start_seconds,
        span_seconds,
        rate_hz=rate_hz,
        context_seconds=context_seconds,
    )
    return whole


def mono(audio: Sound, rate_hz: int) -> tuple[str, Tensor]:
    """A sound's name and its samples, channels averaged."""
    if isinstance(audio, str | Path):
        return str(audio), read_audio(audio, rate_hz=rate_hz)
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
    return name, resample(mono, from_hz=int(audio[1]), to_hz=rate_hz)


def text_conditions(
    text: Tensor,
    mask: Tensor | None,
    negative: Tensor | None,
    negative_mask: Tensor | None,
) -> Conditions:
    """Features and lengths without the padding that no prompt of the batch needs.

    Args:
        text: ``(B, L, width)`` right-padded.
        mask: ``(B, L)``, nonzero = valid; None = all are, padding too.
        negative: As ``text``; None where the negative prompts are not used; so is its mask.
        negative_mask: As ``mask``.
    """
    if negative is None:
        negative, negative_mask = text[:, :0], None
    cut = []
    for features, valid in ((text, mask), (negative, negative_mask)):
        lengths = (features.shape[1],) * len(features)
        if valid is not None:
            lengths = tuple(valid.bool().sum(dim=1).tolist())
        cut.append((features[:, : max(lengths)], lengths))
    (text, lengths), (negative, negative_lengths) = cut
    return Conditions(text, negative, None, lengths, negative_lengths)
