"""A sound track as a file holds it, at its own rate, put on the clock of the picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from musicinfuser.media.decoding import Deadline, frames
from musicinfuser.media.errors import MediaError, picture_stream, reason

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import InputContainer

Channel = Literal["mean", "first"]

# What damaged headers state beyond these would fill the memory with silence or with interpolation.
RATES_HZ = range(1000, 1_000_000)
_MAX_HOLE_SECONDS = 3600.0
# Containers round time stamps to a millisecond; the shortest common packet lasts 20 ms.
_JITTER_SECONDS = 0.01


def picture_start_seconds(
    container: "InputContainer", path: Path | str, deadline: Deadline
) -> float | None:
    """Time stamp of the first video frame on the container's clock; None without a picture."""
    import av

    try:
        stream = picture_stream(container, path)
    except MediaError:
        return None
    # Sound can be whole where the picture is not; the header still tells the start.
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    try:
        frame = next(frames(container, stream, deadline), None)
    except av.error.FFmpegError:
        return start
    return start if frame is None or frame.time is None else frame.time


def decode_track(
    container: "InputContainer",
    path: Path | str,
    channel: Channel,
    deadline: Deadline,
    *,
    zero: float | None,
    kept_from: int,
    needed: float,
    until: float,
) -> tuple[Tensor, int]:
    """The track at its own rate, as one channel, with silence where it has holes.

    Args:
        container: Open, nothing decoded yet.
        path: Named in errors.
        channel: As in `read_audio`.
        deadline: When to give the file up.
        zero: Where time begins, on the container's clock; None is the first sample.
        kept_from: Whole seconds after ``zero`` from which samples are kept.
        needed: Second up to which the track must decode.
        until: Second after which nothing is decoded.

    Returns:
        float32 (S,), full scale 1, and the sampling rate in Hz.

    Raises:
        MediaError: If there is no sound, it is damaged before ``needed``, or its header or time
            stamps cannot be true.
    """
    import av

    stream = container.streams.best("audio")
    if not isinstance(stream, av.AudioStream):
        raise MediaError(f"{path}: has no audio stream.")
    pieces: list[Tensor] = []
    rate_hz, filled, expected = 0, 0, None
    try:
        for frame in frames(container, stream, deadline):
            samples = torch.from_numpy(_mono(frame, channel))
            if rate_hz not in (0, frame.sample_rate):
                raise MediaError(f"{path}: the sampling rate of its sound changes on the way.")
            rate_hz = frame.sample_rate
            if rate_hz not in RATES_HZ:
                raise MediaError(f"{path}: states a sampling rate of {rate_hz} Hz.")
            if not samples.isfinite().all():
                raise MediaError(f"{path}: its sound holds values that are no numbers.")
            if zero is None:
                zero = frame.time or 0.0
            position = expected or 0
            if frame.time is not None:
                stamped = round((frame.time - zero) * rate_hz)
                if expected is None or abs(stamped - expected) > _JITTER_SECONDS * rate_hz:
                    position = stamped
            expected = position + len(samples)
            hole = int(min(position - filled, until * rate_hz))
            if hole > _MAX_HOLE_SECONDS * rate_hz:
                raise MediaError(
                    f"{path}: the time stamps of its sound leap by {hole / rate_hz:.0f} s."
                )
            piece = functional.pad(samples, (max(hole, 0), 0)) if hole > 0 else samples[-hole:]
            pieces.append(piece[max(kept_from * rate_hz - filled, 0) :])
            filled += len(piece)
            if filled >= until * rate_hz:
                break
    except av.error.FFmpegError as error:
        deadline.check()
        if filled <= needed * rate_hz:
            at = filled / rate_hz if rate_hz else 0.0
            raise MediaError(
                f"{path}: its sound is damaged near second {at:.2f} ({reason(error)})."
            ) from error
    if not pieces:
        raise MediaError(f"{path}: its audio stream holds no sound.")
    return torch.cat(pieces), rate_hz


def _mono(frame: "AudioFrame", channel: Channel) -> np.ndarray:
    """float32 (S,) with full scale 1 from a frame of any sample format and layout."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    # FFmpeg's own downmix would weigh the channels of 5.1 unequally.
    signal = samples[0] if channel == "first" else samples.mean(axis=0, dtype=np.float64)
    if samples.dtype == np.uint8:
        return ((signal - np.float64(128)) / 128).astype(np.float32)
    if np.issubdtype(samples.dtype, np.integer):
        signal = signal / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return np.ascontiguousarray(signal, dtype=np.float32)
