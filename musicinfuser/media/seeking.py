"""Finding frames by presentation time stamp."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from musicinfuser.media.decoding import Deadline, frames, packets
from musicinfuser.media.errors import MediaError, picture_stream, reading, reason

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Matroska and FLV round every time stamp, the first one included, to a millisecond.
PTS_TOLERANCE_SECONDS = 1.5e-3
# How far before a key frame to look again when its picture turns out later than the asked time.
_SEEK_BACK_SECONDS = (0.0, 1.0, 5.0)


def frame_seconds(frame: "VideoFrame", path: Path | str) -> float:
    """The frame's time on the container's clock."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is None or frame.time_base is None:
        raise MediaError(f"{path}: its frames carry no time stamps; remux it into mp4 or mkv.")
    return float(stamp * frame.time_base)


def shown_for_seconds(frame: "VideoFrame", stream: "VideoStream") -> float:
    """How long a player shows the frame."""
    rate = stream.average_rate or stream.guessed_rate
    nominal = float(1 / rate) if rate else 0.0
    return float(frame.duration * (frame.time_base or 0)) or nominal


def length_seconds(
    container: "InputContainer", stream: "VideoStream", zero: float, deadline: Deadline
) -> float:
    """From second ``zero`` to the stream's end, by its own header or else by its packets."""
    time_base = stream.time_base or Fraction(1)
    if stream.duration is not None:
        return float(stream.duration * time_base)
    rate = stream.average_rate or stream.guessed_rate
    nominal = 1 / (rate * time_base) if rate else 0
    start, length = container.start_time or 0, container.duration or 0  # microseconds
    end: float | Fraction = zero / time_base
    # The container's own length covers its sound too, and counts from zero or from its start as
    # the format pleases, so it only hints where the last key frame lies.
    for back in (0, 20_000_000, length):
        container.seek(start + max(0, length - back))
        ends = [
            p.pts + (p.duration or nominal)
            for p in packets(container, stream, deadline)
            if p.pts is not None
        ]
        if ends:
            end = max(ends)
            break
    return float(end * time_base) - zero


def first_frame(
    container: "InputContainer", stream: "VideoStream", path: Path | str, deadline: Deadline
) -> "VideoFrame":
    """The first frame that decodes."""
    for frame in frames(container, stream, deadline):
        return frame
    raise MediaError(f"{path}: its video stream holds no frame.")


def frames_around(
    container: "InputContainer",
    stream: "VideoStream",
    time: float,
    zero: float,
    path: Path | str,
    deadline: Deadline,
) -> Iterator[tuple[float, "VideoFrame"]]:
    """Stamped frames in order, from one not later than ``time``; both on the container's clock."""
    import av

    for back_seconds in _SEEK_BACK_SECONDS:
        target = max(time - back_seconds, zero)
        try:
            container.seek(math.floor(target / (stream.time_base or 1)), stream=stream)
        except av.error.FFmpegError:
            break
        stamped = _stamped_frames(container, stream, target, zero, path, deadline)
        first = next(stamped, None)
        # The key frame found lies before the target in decoding order, which with an open group
        # of pictures does not mean in time. Transport streams are searched by time alone, and not
        # every decoder says that it starts without a key frame.
        is_early = first is not None and first[0] <= time + PTS_TOLERANCE_SECONDS
        if first is not None and is_early and first[1].key_frame:
            yield first
            yield from stamped
            return
    # Not every format finds its first key frame again by seeking.
    with reading(path, "video", deadline) as again:
        stream = picture_stream(again, path)
        yield from _stamped_frames(again, stream, zero, zero, path, deadline)


def _stamped_frames(
    container: "InputContainer",
    stream: "VideoStream",
    time: float,
    zero: float,
    path: Path | str,
    deadline: Deadline,
) -> Iterator[tuple[float, "VideoFrame"]]:
    import av

    decoded = frames(container, stream, deadline)
    last = -math.inf
    while True:
        try:
            frame = next(decoded, None)
        except av.error.FFmpegError as error:
            deadline.check()
            raise MediaError(
                f"{path}: its picture is damaged near second {time - zero:.2f} ({reason(error)})."
            ) from error
        if frame is None:
            return
        time = frame_seconds(frame, path)
        # H.264 decoders paint over damage and say so only here.
        if frame.is_corrupt:
            raise MediaError(f"{path}: its picture is damaged near second {time - zero:.2f}.")
        if time < last:
            raise MediaError(
                f"{path}: its time stamps run backwards near second {last - zero:.2f}."
            )
        last = time
        yield time, frame
