"""A finished clip of a request: its sound, its frames, and the file."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from musicinfuser import keyed_random
from musicinfuser.clip_size import check_takes_image
from musicinfuser.diffusion.windows import Windows
from musicinfuser.generation.sampling import (
    AudioConditioning,
    LatentCheckpoint,
    SamplingSpec,
    sample_latents,
)
from musicinfuser.generation_requests import NO_AUDIO, SILENCE, GenerationRequest
from musicinfuser.media.audio import (
    clip_audio_seconds,
    fit_length,
    read_audio,
    starts_too_late,
)
from musicinfuser.media.generated import ManifestEntry, write_generated
from musicinfuser.media.pictures import read_picture
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.networks.encoders import Encoders
from musicinfuser.networks.music_model import MusicModel

# Rate of the sound that goes into the file; that of the conditioning is the audio encoder's.
OUTPUT_RATE_HZ = 44_100
SAMPLING_REMEDY = (
    "add the file of configs/profiles that train.py check names for this GPU, or ask for fewer "
    "frames (of a song: fewer sampling.window_frames)"
)
ENCODING_REMEDY = (
    "set memory.stream_blocks to true, as configs/profiles/24gb.yaml and wan_24gb.yaml do, which "
    "leaves more of it to the encoders"
)
DECODING_REMEDY = "set encoders.vae_tiling to true, or ask for fewer frames"


@dataclass(frozen=True)
class GeneratedClip:
    """A finished clip with what made it."""

    request: GenerationRequest
    """What was asked, with the track offset that was used."""
    frames: Tensor
    """``(T, H, W, 3)`` uint8; of a clip in windows its first second or so."""
    waveform: Tensor
    """``(num_samples,)`` fp32 at `OUTPUT_RATE_HZ`, zero-padded where the track was too short."""
    padded_seconds: float
    """Silence added because the track, or the audio in its place, ended before the clip."""
    fps: float
    more_frames: Iterable[Tensor] = ()
    """Of a clip in windows, what follows, a piece at a time; decoded when it is taken, once."""
    windows: Windows | None = None
    """In which it was sampled; None for one pass."""
    checkpoint: LatentCheckpoint | None = None
    """Its latents on disk, to be removed once the clip is written."""


def generate(
    model: MusicModel,
    encoders: Encoders,
    request: GenerationRequest,
    sampling: SamplingSpec,
    *,
    device: torch.device,
    progress: Callable[[range], Iterable[int]] | None = None,
    on_window: Callable[[int], None] | None = None,
    checkpoint: LatentCheckpoint | None = None,
) -> GeneratedClip:
    """Generate one clip. Deterministic: all randomness comes from the request's seed.

    A request in windows that is longer than one is denoised window by window, and decoded as its
    frames are taken: neither the device's memory nor the frames held grow with its length.

    Args:
        model: The adapted transformer, on ``device``.
        encoders: Frozen encoders; moved to ``device`` while used.
        request: Track, prompt, seed, size, the audio if it is not the track, and a first picture.
        sampling: Steps and guidance.
        device: Where to compute; run under autocast for a bf16 backbone.
        progress: Wraps the range of sampling steps.
        on_window: Called after each window of each step, with how many there are to do.
        checkpoint: Where the latents go after each step, and where an earlier call left them;
            None saves nothing.

    Raises:
        MediaError: The track, other audio or picture cannot be read, or the track has no sound at
            its offset.
        UserError: A picture, and a backbone that cannot begin with one.
        OutOfMemoryError: The device's memory is too small; says which option to use.
    """
    picture = None
    if request.image is not None:
        check_takes_image(model.kind.geometry)
        picture = read_picture(request.image, height=request.height, width=request.width)
    windows = sampling.windows(request.num_frames) if request.in_windows else None
    rate_hz, context_seconds = encoders.audio.rate_hz, encoders.audio.context_seconds
    request, sound, waveform, padded_seconds = read_track(
        request, fps=sampling.fps, rate_hz=rate_hz, windows=windows, context_seconds=context_seconds
    )
    audio: AudioConditioning | None = None
    encode_audio = partial(encoders.encode_audio, device=device)
    first_frame = None
    with named_out_of_memory("encoding prompt, music and picture", ENCODING_REMEDY):
        text, negative = encoders.encode_captions(
            [request.prompt, sampling.negative_prompt], device=device
        )
        if sound is not None:
            audio = audio_by_windows(
                encode_audio, sound[None], windows, fps=sampling.fps, rate_hz=rate_hz,
                first=round(min(audio_offset_seconds(request), context_seconds) * rate_hz),
                span_seconds=audio_seconds(request.num_frames, fps=sampling.fps, windows=windows),
            )  # fmt: skip
        if picture is not None:
            first_frame = encoders.encode_picture(picture, device=device)
    num_steps = sampling.num_steps - (checkpoint.num_done() if checkpoint else 0)
    num_windows = num_steps * (len(windows.starts) if windows else 0)
    with named_out_of_memory("sampling", SAMPLING_REMEDY):
        latents = sample_latents(
            model, text=text, negative=negative, audio=audio, first_frame=first_frame,
            request=request, sampling=sampling, device=device, checkpoint=checkpoint,
            windows=windows, progress=progress,
            on_window=None if on_window is None else partial(on_window, num_windows),
        )  # fmt: skip
    more_frames: Iterable[Tensor] = ()
    if windows is None:
        with named_out_of_memory("decoding the latents", DECODING_REMEDY):
            frames = encoders.decode_video(latents)[0]
    else:
        more_frames = _pieces(encoders, latents, device)
        frames = next(more_frames)
    return GeneratedClip(
        request, frames, waveform, padded_seconds, sampling.fps, more_frames, windows, checkpoint
    )


def _pieces(encoders: Encoders, latents: Tensor, device: torch.device) -> Iterator[Tensor]:
    with named_out_of_memory("decoding the latents", DECODING_REMEDY):
        for piece in encoders.decode_pieces(latents, device=device):
            yield piece[0]


def audio_seconds(num_frames: int, *, fps: float, windows: Windows | None = None) -> float:
    """Length of the sound that a clip is conditioned on.

    In one pass the authors' span; in windows each takes as much as a clip of its length would, so
    up to 0.1 s beyond its last frame.
    """
    if windows is None:
        return clip_audio_seconds(num_frames, fps=fps)
    of_window = windows.frames_per_latent * (windows.length - 1) + 1
    last_start = windows.starts[-1] * windows.frames_per_latent / fps
    return last_start + clip_audio_seconds(of_window, fps=fps)


def audio_by_windows(
    encode: Callable[[Tensor, int, int], Tensor],
    sound: Tensor,
    windows: Windows | None,
    *,
    fps: float,
    rate_hz: int = 16_000,
    first: int = 0,
    span_seconds: float | None = None,
) -> AudioConditioning:
    """Features of the sound, with windows those of each by its first latent frame, on the CPU.

    Each window's sound is encoded by itself, as that of a training clip is. Latent frame k of a
    clip of Mochi's is shown up to frame 6k, wherever a window starts, so each latent frame further
    on sound starts 6 frames later.

    Args:
        encode: Features ``(B, S, width)`` of a part of ``(B, num_samples)``: its first sample and
            its length.
        sound: ``(B, num_samples)`` over `audio_seconds`, and the context around it.
        windows: In which the clips are sampled; None for one pass.
        fps: Frame rate of the clips.
        rate_hz: Of the sound.
        first: Sample of ``sound`` at which the clips begin.
        span_seconds: Their `audio_seconds`; None: what follows is theirs.
    """
    num_samples = sound.shape[-1] - first
    if span_seconds is not None:
        num_samples = round(span_seconds * rate_hz)
    if windows is None:
        return encode(sound, first, num_samples)
    latent_seconds = windows.frames_per_latent / fps
    firsts = [round(s * latent_seconds * rate_hz) for s in windows.starts]
    length = num_samples - firsts[-1]
    return {
        start: encode(sound, first + of_window, length).cpu()
        for start, of_window in zip(windows.starts, firsts, strict=True)
    }


def read_track(
    request: GenerationRequest,
    *,
    fps: float,
    rate_hz: int = 16_000,
    windows: Windows | None = None,
    context_seconds: float = 0.0,
) -> tuple[GenerationRequest, Tensor | None, Tensor, float]:
    """The sound of a request.

    Args:
        request: Whose track, and the audio in its place.
        fps: Frame rate of the clip.
        rate_hz: Of the sound that is conditioned on.
        windows: In which it will be sampled; None for one pass.
        context_seconds: As `cut_span`'s.

    Returns:
        The request with its offset settled; ``(num_samples,)`` at ``rate_hz`` to condition on, over
        `audio_seconds` and the context, from the track or the audio in its place, None for no
        audio;
        ``(num_samples,)`` of the track at `OUTPUT_RATE_HZ` for the file, as long as the video; and
        the seconds of silence that were added at the end (of the two sounds, the more).

    Raises:
        MediaError: The track or other audio cannot be read or ends before its offset.
    """
    span_seconds = audio_seconds(request.num_frames, fps=fps, windows=windows)
    track = read_audio(request.track, rate_hz=rate_hz)
    if request.track_offset_seconds is None:
        # Authors' code: a random start inside the track.
        stream = keyed_random.generator(request.seed, request.track_name, "track offset")
        room = max(len(track) / rate_hz - span_seconds, 0.0)
        offset = round(torch.rand((), generator=stream).item() * room, 3)
        request = replace(request, track_offset_seconds=offset)
    assert request.track_offset_seconds is not None
    cut = partial(cut_span, rate_hz=rate_hz, context_seconds=context_seconds)
    offset_seconds = request.track_offset_seconds
    sound, padded_seconds = cut(request.track, track, offset_seconds, span_seconds)
    if request.heard_file is not None:
        other = read_audio(request.heard_file, rate_hz=rate_hz)
        offset_seconds = audio_offset_seconds(request)
        sound, missing_seconds = cut(request.heard_file, other, offset_seconds, span_seconds)
        padded_seconds = max(padded_seconds, missing_seconds)
    if request.heard == SILENCE:
        sound = torch.zeros_like(sound)
    video_seconds = request.num_frames / fps
    waveform = read_audio(
        request.track,
        rate_hz=OUTPUT_RATE_HZ,
        start_seconds=request.track_offset_seconds,
        duration_seconds=video_seconds,
    )
    waveform = fit_length(waveform, round(video_seconds * OUTPUT_RATE_HZ))
    return request, None if request.heard == NO_AUDIO else sound, waveform, padded_seconds


def audio_offset_seconds(request: GenerationRequest) -> float:
    """Where the audio conditioning of a settled request starts in its track or other audio."""
    offset_seconds = request.track_offset_seconds
    if request.heard_file is not None and request.heard_offset_seconds is not None:
        offset_seconds = request.heard_offset_seconds
    assert offset_seconds is not None
    return offset_seconds


def cut_span(
    path: str,
    sound: Tensor,
    offset_seconds: float,
    span_seconds: float,
    *,
    rate_hz: int,
    context_seconds: float = 0.0,
) -> tuple[Tensor, float]:
    """A span of a sound, and the seconds of silence added at its end.

    Before and after it come up to ``context_seconds``, as far as the sound has them.
    """
    seconds = len(sound) / rate_hz
    if offset_seconds >= seconds:
        raise starts_too_late(path, seconds, offset_seconds)
    start, num_samples = round(offset_seconds * rate_hz), round(span_seconds * rate_hz)
    missing_seconds = max(start + num_samples - len(sound), 0) / rate_hz
    span = fit_length(sound[start : start + num_samples], num_samples)
    before = start - round(min(offset_seconds, context_seconds) * rate_hz)
    last = start + num_samples
    after = sound[last : last + round(context_seconds * rate_hz)]
    return torch.cat([sound[before:start], span, after]), missing_seconds


def write_clip(
    folder: Path, clip: GeneratedClip, *, sampling: SamplingSpec, system: str
) -> ManifestEntry:
    """Write one generated clip with its description and return the latter.

    What is conditioned on something else than its track is a system of its own, so that no table
    averages it with the rest.
    """
    request = clip.request
    assert request.track_offset_seconds is not None
    names = ["num_steps", "guidance_scale", "music_guidance_scale"]
    names += ["negative_prompt", "shift", "solver"]
    if clip.windows is not None:
        names += ["window_frames", "window_overlap_frames", "window_noise"]
    entry = ManifestEntry(
        file=f"{request.file_stem()}.mp4",
        system=", ".join(filter(None, (system, request.control))),
        fps=clip.fps,
        padded_seconds=clip.padded_seconds,
        **vars(request),
        **{name: getattr(sampling, name) for name in names},
    )
    write_generated(
        folder,
        entry,
        frames=clip.frames if clip.windows is None else chain([clip.frames], clip.more_frames),
        waveform=clip.waveform,
        audio_rate_hz=OUTPUT_RATE_HZ,
    )
    return entry
