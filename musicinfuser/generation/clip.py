"""A finished clip of a request."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from musicinfuser.clip_size import check_clip_size
from musicinfuser.diffusion.windows import Windows
from musicinfuser.generation.latent_checkpoint import LatentCheckpoint
from musicinfuser.generation.sampling import AudioConditioning, sample_latents
from musicinfuser.generation.settings import SamplingSpec
from musicinfuser.generation.track import features_by_windows, read_track
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.networks.encoders import Encoders
from musicinfuser.networks.music_mochi import MusicMochi

SAMPLING_REMEDY = (
    "add --config configs/profiles/40gb.yaml or configs/profiles/24gb.yaml, or ask for fewer "
    "frames (of a song: fewer sampling.window_frames)"
)
ENCODING_REMEDY = "add --config configs/profiles/24gb.yaml, which leaves more of it to the encoders"
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
    """Silence added because the track, or what was heard in its place, ended before the clip."""
    fps: float
    more_frames: Iterable[Tensor] = ()
    """Of a clip in windows, what follows, a piece at a time; decoded when it is taken, once."""
    windows: Windows | None = None
    """In which it was sampled; None for one pass."""
    checkpoint: LatentCheckpoint | None = None
    """Its latents on disk, to be removed once the clip is written."""


def generate(
    model: MusicMochi,
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
        request: Track, prompt, seed, size, and what is heard if not the track.
        sampling: Steps and guidance.
        device: Where to compute; run under autocast for a bf16 backbone.
        progress: Wraps the range of sampling steps.
        on_window: Called after each window of each step, with how many there are to do.
        checkpoint: Where the latents go after each step, and where an earlier call left them;
            None keeps nothing.

    Raises:
        MediaError: The track or what is heard cannot be read, or has no sound at its offset.
        ValueError: A size Mochi cannot take.
        OutOfMemoryError: The device's memory is too small; says which option to use.
    """
    check_clip_size(request.num_frames, request.height, request.width)
    windows = sampling.windows(request.num_frames) if request.in_windows else None
    rate_hz = encoders.audio.rate_hz
    request, heard, waveform, padded_seconds = read_track(
        request, fps=sampling.fps, rate_hz=rate_hz, windows=windows
    )
    audio: AudioConditioning | None = None
    with named_out_of_memory("encoding prompt and music", ENCODING_REMEDY):
        text, negative = encoders.encode_captions(
            [request.prompt, sampling.negative_prompt], device=device
        )
        if heard is not None and windows is None:
            audio = encoders.encode_audio(heard[None], device=device)
        elif heard is not None and windows is not None:
            encode = partial(encoders.encode_audio, device=device)
            audio = features_by_windows(
                encode, heard[None], windows, fps=sampling.fps, rate_hz=rate_hz
            )
    num_steps = sampling.num_steps - (checkpoint.num_done() if checkpoint else 0)
    num_windows = num_steps * (len(windows.starts) if windows else 0)
    with named_out_of_memory("sampling", SAMPLING_REMEDY):
        latents = sample_latents(
            model, text=text, negative=negative, audio=audio, request=request, sampling=sampling,
            device=device, windows=windows, progress=progress,
            on_window=None if on_window is None else partial(on_window, num_windows),
            checkpoint=checkpoint,
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
