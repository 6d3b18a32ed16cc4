"""Frames by presentation time stamp, interlaced ones as pictures of one moment."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from musicinfuser.media.decoding import MediaFile
from musicinfuser.media.errors import MediaError, reason

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph
    from av.video.stream import VideoStream

Stamped = Iterator[tuple[float, "VideoFrame"]]
"""Frames in order, each with its time in seconds on the container's clock."""
# Matroska and FLV round every time stamp, the first one included, to a millisecond.
PTS_TOLERANCE_SECONDS = 1.5e-3
# How far before a key frame to look again when its picture turns out later than the asked time.
_SEEK_BACK_SECONDS = (0.0, 1.0, 5.0)


def first_frame(file: MediaFile) -> tuple[float, "VideoFrame"]:
    """The first frame that decodes, and its time on the container's clock."""
    for frame in file.pictures():
        return _frame_seconds(frame, file), frame
    raise MediaError(f"{file.path}: its video stream holds no frame.")


def _frame_seconds(frame: "VideoFrame", file: MediaFile) -> float:
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is None or frame.time_base is None:
        raise MediaError(f"{file.path}: its frames carry no time stamps; remux it into mp4 or mkv.")
    return float(stamp * frame.time_base)


def shown_for_seconds(frame: "VideoFrame", stream: "VideoStream") -> float:
    """How long a player shows the frame."""
    rate = stream.average_rate or stream.guessed_rate
    nominal = float(1 / rate) if rate else 0.0
    return float(frame.duration * (frame.time_base or 0)) or nominal


def length_seconds(file: MediaFile, zero: float) -> float:
    """From second ``zero`` to the picture's end, by its own header or else by its packets."""
    stream, container = file.picture, file.container
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
            packet.pts + (packet.duration or nominal)
            for packet in file.packets(stream)
            if packet.pts is not None
        ]
        if ends:
            end = max(ends)
            break
    return float(end * time_base) - zero


def frames_around(file: MediaFile, time: float, zero: float) -> Stamped:
    """Frames from one not later than ``time``; ``zero`` is the time of the first of the file."""
    import av

    for back_seconds in _SEEK_BACK_SECONDS:
        target = max(time - back_seconds, zero)
        try:
            stamp = math.floor(target / (file.picture.time_base or 1))
            file.container.seek(stamp, stream=file.picture)
        except av.error.FFmpegError:
            break
        stamped = _stamped_frames(file, target, zero)
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
    with file.again() as again:
        yield from _stamped_frames(again, zero, zero)


def _stamped_frames(file: MediaFile, time: float, zero: float) -> Stamped:
    import av

    decoded = file.pictures()
    last = -math.inf
    while True:
        try:
            frame = next(decoded, None)
        except av.error.FFmpegError as error:
            file.deadline.check()
            raise _damaged(file, time - zero, f" ({reason(error)})") from error
        if frame is None:
            return
        time = _frame_seconds(frame, file)
        # H.264 decoders paint over damage and say so only here.
        if frame.is_corrupt:
            raise _damaged(file, time - zero)
        if time < last:
            raise MediaError(
                f"{file.path}: its time stamps run backwards near second {last - zero:.2f}."
            )
        last = time
        yield time, frame


def _damaged(file: MediaFile, second: float, why: str = "") -> MediaError:
    return MediaError(f"{file.path}: its picture is damaged near second {second:.2f}{why}.")


def deinterlaced(stamped: Stamped, stream: "VideoStream") -> Stamped:
    """The same times with frames of one moment each, that of their first field.

    Missing lines come from FFmpeg's bwdif, which looks at the frames before and after. Frames that
    are not marked as interlaced stay as they are.
    """
    graph: Graph | None = None
    key: tuple[int, int, str] | None = None
    times: list[float] = []
    for seconds, frame in stamped:
        if graph is None and not frame.interlaced_frame:
            yield seconds, frame
            continue
        # A graph takes frames of one kind.
        if graph is not None and key != (key := _kind(frame)):
            yield from _pulled(graph, times, is_end=True)
            graph = None
        if graph is None:
            graph, key = _graph(frame, stream), _kind(frame)
        graph.push(frame)
        times.append(seconds)
        yield from _pulled(graph, times)
    if graph is not None:
        yield from _pulled(graph, times, is_end=True)


def _kind(frame: "VideoFrame") -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _graph(frame: "VideoFrame", stream: "VideoStream") -> "Graph":
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    time_base = frame.time_base or stream.time_base
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=time_base
    )
    bwdif = graph.add("bwdif", mode="send_frame", deint="interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: "Graph", times: list[float], *, is_end: bool = False) -> Stamped:
    """What has come through; the filter gives one frame for each, in order."""
    from av.error import BlockingIOError, EOFError

    if is_end:
        graph.push(None)
    while times:
        try:
            frame = graph.vpull()
        except (BlockingIOError, EOFError):
            return
        yield times.pop(0), frame
