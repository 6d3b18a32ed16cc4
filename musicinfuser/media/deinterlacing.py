"""Interlaced frames hold two moments, one in every second line; here each becomes one picture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph
    from av.video.stream import VideoStream


def deinterlaced(
    stamped: Iterator[tuple[float, "VideoFrame"]], stream: "VideoStream"
) -> Iterator[tuple[float, "VideoFrame"]]:
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
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or stream.time_base,
    )
    graph.link_nodes(
        source, graph.add("bwdif", mode="send_frame", deint="interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _pulled(
    graph: "Graph", times: list[float], *, is_end: bool = False
) -> Iterator[tuple[float, "VideoFrame"]]:
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
