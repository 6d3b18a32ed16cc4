"""The sound of a request: what the model hears and what goes into the file."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from musicinfuser import keyed_random
from musicinfuser.clip_size import FRAMES_PER_LATENT
from musicinfuser.diffusion.windows import Windows
from musicinfuser.generation_requests import NO_AUDIO, GenerationRequest
from musicinfuser.media.audio import clip_audio_seconds, fit_length, read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.networks.encoders import AUDIO_RATE_HZ

# Rate of the sound that goes into the file; the model hears 16 kHz.
OUTPUT_RATE_HZ = 44_100


def heard_seconds(num_frames: int, *, fps: float, windows: Windows | None = None) -> float:
    """Length of what the model hears of a clip.

    In one pass the authors' span; in windows each hears as much as a clip of its length would, so
    up to 0.1 s beyond its last frame.
    """
    if windows is None:
        return clip_audio_seconds(num_frames, fps=fps)
    of_window = FRAMES_PER_LATENT * (windows.length - 1) + 1
    last_start = windows.starts[-1] * FRAMES_PER_LATENT / fps
    return last_start + clip_audio_seconds(of_window, fps=fps)


def heard_by_windows(
    encode: Callable[[Tensor], Tensor], heard: Tensor, windows: Windows, *, fps: float
) -> dict[int, Tensor]:
    """Features of what each window hears, by its first latent frame, on the CPU.

    Each window's sound is encoded by itself, as that of a training clip is. Latent frame k of a
    clip is shown up to frame 6k, wherever a window starts, so each latent frame further on sound
    starts 6 frames later.

    Args:
        encode: Features ``(B, S, width)`` of ``(B, num_samples)`` at 16 kHz.
        heard: ``(B, num_samples)`` at 16 kHz over `heard_seconds`.
        windows: In which the clips are sampled.
        fps: Frame rate of the clips.
    """
    latent_seconds = FRAMES_PER_LATENT / fps
    firsts = [round(s * latent_seconds * AUDIO_RATE_HZ) for s in windows.starts]
    length = heard.shape[-1] - firsts[-1]
    return {
        start: encode(heard[:, first : first + length]).cpu()
        for start, first in zip(windows.starts, firsts, strict=True)
    }


def read_track(
    request: GenerationRequest, *, fps: float, windows: Windows | None = None
) -> tuple[GenerationRequest, Tensor | None, Tensor, float]:
    """The sound of a request.

    Args:
        request: Whose track, and what is heard in its place.
        fps: Frame rate of the clip.
        windows: In which it will be sampled; None for one pass.

    Returns:
        The request with its offset settled; ``(num_samples,)`` at 16 kHz for the model, over
        `heard_seconds`, from the track or from what is heard in its place, None if that is nothing;
        ``(num_samples,)`` of the track at `OUTPUT_RATE_HZ` for the file, as long as the video; and
        the seconds of silence that were added at the end (of the two sounds, the more).

    Raises:
        MediaError: The track or what is heard cannot be read or ends before its offset.
    """
    span_seconds = heard_seconds(request.num_frames, fps=fps, windows=windows)
    track = read_audio(request.track, rate_hz=AUDIO_RATE_HZ)
    if request.track_offset_seconds is None:
        # Authors' code: a random start inside the track.
        stream = keyed_random.generator(request.seed, request.track_name, "track offset")
        room = max(len(track) / AUDIO_RATE_HZ - span_seconds, 0.0)
        offset = round(torch.rand((), generator=stream).item() * room, 3)
        request = replace(request, track_offset_seconds=offset)
    assert request.track_offset_seconds is not None
    heard, padded_seconds = cut_span(
        request.track, track, request.track_offset_seconds, span_seconds
    )
    if request.heard_file is not None:
        other = read_audio(request.heard_file, rate_hz=AUDIO_RATE_HZ)
        other_offset = request.heard_offset_seconds
        if other_offset is None:
            other_offset = request.track_offset_seconds
        heard, missing_seconds = cut_span(request.heard_file, other, other_offset, span_seconds)
        padded_seconds = max(padded_seconds, missing_seconds)
    video_seconds = request.num_frames / fps
    sound = read_audio(
        request.track,
        rate_hz=OUTPUT_RATE_HZ,
        start_seconds=request.track_offset_seconds,
        duration_seconds=video_seconds,
    )
    sound = fit_length(sound, round(video_seconds * OUTPUT_RATE_HZ))
    return request, None if request.heard == NO_AUDIO else heard, sound, padded_seconds


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
