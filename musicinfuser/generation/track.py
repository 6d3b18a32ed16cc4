"""The sound of a request: what the clip is conditioned on, and what goes into the file."""

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

# Rate of the sound that goes into the file; that of the conditioning is the audio encoder's.
OUTPUT_RATE_HZ = 44_100


def conditioning_seconds(num_frames: int, *, fps: float, windows: Windows | None = None) -> float:
    """Length of the sound that a clip is conditioned on.

    In one pass the authors' span; each window gets as much as a clip of its length would, so up to
    0.1 s beyond its last frame.
    """
    if windows is None:
        return clip_audio_seconds(num_frames, fps=fps)
    of_window = FRAMES_PER_LATENT * (windows.length - 1) + 1
    last_start = windows.starts[-1] * FRAMES_PER_LATENT / fps
    return last_start + clip_audio_seconds(of_window, fps=fps)


def features_by_windows(
    encode: Callable[[Tensor], Tensor],
    sound: Tensor,
    windows: Windows,
    *,
    fps: float,
    rate_hz: int,
) -> dict[int, Tensor]:
    """Audio features for each window, by its first latent frame, on the CPU.

    Each window's sound is encoded by itself, as that of a training clip is. Latent frame k of a
    clip is shown up to frame 6k, wherever a window starts, so each latent frame further on sound
    starts 6 frames later.

    Args:
        encode: Features ``(B, S, width)`` of ``(B, num_samples)``.
        sound: ``(B, num_samples)`` over `conditioning_seconds`.
        windows: In which the clips are sampled.
        fps: Frame rate of the clips.
        rate_hz: Of the sound.
    """
    latent_seconds = FRAMES_PER_LATENT / fps
    firsts = [round(s * latent_seconds * rate_hz) for s in windows.starts]
    length = sound.shape[-1] - firsts[-1]
    return {
        start: encode(sound[:, first : first + length]).cpu()
        for start, first in zip(windows.starts, firsts, strict=True)
    }


def read_track(
    request: GenerationRequest, *, fps: float, rate_hz: int = 16_000, windows: Windows | None = None
) -> tuple[GenerationRequest, Tensor | None, Tensor, float]:
    """The sound of a request.

    Args:
        request: Its track, and the audio it is conditioned on if that is another.
        fps: Frame rate of the clip.
        rate_hz: Of the sound that is conditioned on; the audio encoder's.
        windows: In which it will be sampled; None for one pass.

    Returns:
        The request with its offset settled; ``(num_samples,)`` at ``rate_hz`` to condition on, over
        `conditioning_seconds`, of the track or the other audio, None for no audio;
        ``(num_samples,)`` of the track at `OUTPUT_RATE_HZ` for the file, as long as the video; and
        the seconds of silence that were added at the end (of the two sounds, the more).

    Raises:
        MediaError: One of the sounds cannot be read or ends before its offset.
    """
    span_seconds = conditioning_seconds(request.num_frames, fps=fps, windows=windows)
    track = read_audio(request.track, rate_hz=rate_hz)
    if request.track_offset_seconds is None:
        # Authors' code: a random start inside the track.
        stream = keyed_random.generator(request.seed, request.track_name, "track offset")
        room = max(len(track) / rate_hz - span_seconds, 0.0)
        offset = round(torch.rand((), generator=stream).item() * room, 3)
        request = replace(request, track_offset_seconds=offset)
    assert request.track_offset_seconds is not None
    heard, padded_seconds = cut_span(
        request.track, track, request.track_offset_seconds, span_seconds, rate_hz=rate_hz
    )
    if request.heard_file is not None:
        other = read_audio(request.heard_file, rate_hz=rate_hz)
        other_offset = request.heard_offset_seconds
        if other_offset is None:
            other_offset = request.track_offset_seconds
        heard, missing_seconds = cut_span(
            request.heard_file, other, other_offset, span_seconds, rate_hz=rate_hz
        )
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
    path: str, sound: Tensor, offset_seconds: float, span_seconds: float, *, rate_hz: int
) -> tuple[Tensor, float]:
    """A span of a sound, and the seconds of silence added at its end."""
    seconds = len(sound) / rate_hz
    if offset_seconds >= seconds:
        raise MediaError(
            f"{path} lasts {seconds:.2f} s, but the clip is to start at {offset_seconds:.2f} s; "
            "choose an earlier start."
        )
    start, num_samples = round(offset_seconds * rate_hz), round(span_seconds * rate_hz)
    missing_seconds = max(start + num_samples - len(sound), 0) / rate_hz
    return fit_length(sound[start : start + num_samples], num_samples), missing_seconds
