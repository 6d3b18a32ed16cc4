"""Sound tracks on the clock of their picture."""

import io
import math
import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor
from torch.nn import functional

from musicinfuser.errors import UserError
from musicinfuser.media.audio_decoding import RATES_HZ, Channel, decode_track, picture_start_seconds
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS, Deadline, reading
from musicinfuser.media.errors import MediaError, atomic_file
from musicinfuser.setting_checks import check_choice, check_number

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import OutputContainer
    from av.packet import Packet

# Decoded beyond the asked span, so that the resampler meets no end of the signal inside it.
_MARGIN_SECONDS = 1.0
_BLOCK_SAMPLES = 1 << 16
# What 16 bits can hold lies above -96; music that is meant to be heard far above this.
SILENCE_DBFS = -80.0
_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


def clip_audio_seconds(num_frames: int, *, fps: float = 30.0) -> float:
    """Length of the sound that belongs to a clip, as the authors cut it.

    The clip's length plus 0.09 s, printed with one decimal (authors' preprocessing script):
    73 frames give 2.5 s, 145 give 4.9 s.
    """
    return float(f"{num_frames / fps + 0.09:.1f}")


def read_audio(
    path: Path | str,
    *,
    rate_hz: int = 16000,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    channel: Channel = "mean",
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Tensor:
    """Decode a span of a sound track and resample it as a part of one signal.

    Time zero is the first frame of the container's video, or without a video the first sample.
    Sound that starts later or has holes is filled with silence, sound from before time zero is
    dropped, so equal positions of picture and sound belong together.

    Args:
        path: Song or video in any format FFmpeg decodes.
        rate_hz: Sampling rate of the result.
        start_seconds: Where the span begins, at least 0.
        duration_seconds: Length of the span, or None for everything up to the end.
        channel: ``"mean"`` of all channels with equal weights, or the ``"first"`` one (as the
            authors take it).
        time_limit_seconds: When to give the file up.

    Returns:
        float32 (S,), finite, full scale 1; ``round(duration_seconds * rate_hz)`` samples, or fewer
        where the track ends (or cannot be decoded any further) within the span; see `fit_length`.

    Raises:
        MediaError: If the file cannot be read, or not in time, has no sound, or is damaged shortly
            before the span.
    """
    check_number("start_seconds", start_seconds, at_least=0)
    check_number("duration_seconds", duration_seconds, at_least=0, may_be_infinite=True)
    check_number("rate_hz", rate_hz, above=0)
    check_choice("channel", channel, get_args(Channel))
    until = math.inf
    if duration_seconds is not None:
        until = start_seconds + duration_seconds + _MARGIN_SECONDS
    # Whole seconds are whole samples at every rate, so the resampler's grid stays the same.
    kept_from = math.floor(max(start_seconds - _MARGIN_SECONDS, 0.0))
    with reading(path, "audio", time_limit_seconds) as file:
        zero = picture_start_seconds(file)
    with file.again() as file:
        track, track_rate_hz = decode_track(
            file, channel, zero=zero, kept_from=kept_from, needed=start_seconds, until=until
        )
        track = resample(track, from_hz=track_rate_hz, to_hz=rate_hz, deadline=file.deadline)
    first = round((start_seconds - kept_from) * rate_hz)
    last = None if duration_seconds is None else first + round(duration_seconds * rate_hz)
    return track[first:last].clone()


def starts_too_late(path: str | Path, seconds: float, start_seconds: float) -> MediaError:
    """That a sound of so many seconds ends before a clip is to start in it."""
    return MediaError(
        f"{path} lasts {seconds:.2f} s, but the clip is to start at {start_seconds:.2f} s; choose "
        "an earlier start."
    )


def fit_length(waveform: Tensor, num_samples: int) -> Tensor:
    """Cut or fill with zeros at the end, so that the last axis has ``num_samples``."""
    return functional.pad(waveform, (0, num_samples - waveform.shape[-1]))


def resample(
    waveform: Tensor, *, from_hz: int, to_hz: int, deadline: Deadline | None = None
) -> Tensor:
    """A float32 waveform (S,) at another sampling rate, as `read_audio` would give it."""
    if from_hz not in RATES_HZ:
        raise MediaError(f"the sampling rate of the given sound is {from_hz} Hz.")
    if from_hz == to_hz:
        return waveform
    made = resampled(waveform, from_hz, to_hz, deadline)
    return fit_length(made, round(len(waveform) * to_hz / from_hz))


def loudness_dbfs(waveform: Tensor) -> float:
    """Root mean square over all samples in dB of full scale 1; minus infinity for silence.

    A full-scale square wave has 0, a full-scale sine -3.01.
    """
    if waveform.numel() == 0:
        return -math.inf
    power = float(waveform.double().square().mean())
    return 10 * math.log10(power) if power > 0 else -math.inf


def write_wav(path: Path | str, waveform: Tensor, *, rate_hz: int) -> None:
    """Write `wav_bytes`, whole or not at all.

    Raises:
        UserError: If the shape does not fit.
        MediaError: If the file system refuses.
    """
    content = wav_bytes(waveform, rate_hz=rate_hz)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def wav_bytes(waveform: Tensor, *, rate_hz: int) -> bytes:
    """A wav file of 16-bit PCM in memory.

    Args:
        waveform: Float (S,) or (C, S); values beyond [-1, 1] are clipped.
        rate_hz: Sampling rate.

    Raises:
        ValueError: If the shape does not fit.
    """
    if waveform.ndim not in (1, 2) or not waveform.is_floating_point():
        raise UserError(
            f"waveform must be float (S,) or (C, S), got {waveform.dtype} {tuple(waveform.shape)}."
        )
    channels = torch.atleast_2d(waveform.detach().cpu())
    samples = (channels.double().clamp(-1, 1) * 32767).round().to(torch.int16)
    memory = io.BytesIO()
    with wave.open(memory, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.T.contiguous().numpy().astype("<i2").tobytes())
    return memory.getvalue()


def audio_packets(
    container: "OutputContainer", waveform: Tensor, rate_hz: int
) -> Iterator["Packet"]:
    """Add an AAC stream to a container, then give its packets in order.

    The stream is added at the call, the packets are encoded as they are taken.

    Args:
        container: Open for writing, nothing muxed yet.
        waveform: float32 (C, S) on the CPU, one or two channels in [-1, 1].
        rate_hz: Sampling rate; rates AAC does not know are resampled to 48 kHz.

    Raises:
        ValueError: If there are more than two channels.
    """
    import av

    layout = {1: "mono", 2: "stereo"}.get(len(waveform))
    if layout is None:
        raise UserError(f"audio must have one or two channels, got {len(waveform)}.")
    stream_rate_hz = rate_hz if rate_hz in _AAC_RATES_HZ else 48000
    stream = container.add_stream("aac", rate=stream_rate_hz, layout=layout)
    stream.bit_rate = 96_000 * len(waveform)

    def packets() -> Iterator["Packet"]:
        samples = waveform.contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets()


def joined(frames: Iterable["AudioFrame"]) -> Tensor:
    """The samples (S,) of float frames of one channel; there may be none."""
    pieces = (torch.from_numpy(frame.to_ndarray()[0]) for frame in frames)
    return torch.cat([torch.zeros(0), *pieces])


def resampled(
    waveform: Tensor, from_hz: int, to_hz: int, deadline: Deadline | None = None
) -> Tensor:
    """A float32 waveform (S,) through FFmpeg's resampler, with the tail that its filter adds."""
    form = ("aformat", f"sample_fmts=fltp:sample_rates={to_hz}:channel_layouts=mono")
    return joined(filtered(waveform, from_hz, form, deadline=deadline))


def filtered(
    waveform: Tensor, rate_hz: int, *filters: tuple[str, str], deadline: Deadline | None = None
) -> Iterator["AudioFrame"]:
    """What FFmpeg's filters, each a name and its options, make of a float32 waveform (S,)."""
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=rate_hz, format="fltp", layout="mono", time_base=Fraction(1, rate_hz)
    )
    nodes = [graph.add(name, options) for name, options in filters]
    graph.link_nodes(source, *nodes, graph.add("abuffersink")).configure()

    def frames() -> Iterator["AudioFrame | None"]:
        for start in range(0, len(waveform), _BLOCK_SAMPLES):
            if deadline is not None:
                deadline.check()
            block = waveform[None, start : start + _BLOCK_SAMPLES].contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), start
            yield frame
        yield None

    for frame in frames():
        graph.push(frame)
        while True:
            try:
                made = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
            yield made  # type: ignore[misc]
