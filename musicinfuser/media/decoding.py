"""Packets and frames of a file that has so much time and no more."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicinfuser.errors import UserError
from musicinfuser.media.errors import MediaError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

TIME_LIMIT_SECONDS = 300.0
"""For one reading of one file; ten hours of sound on a busy machine take less."""


class Deadline:
    """When the reading of a file is given up.

    FFmpeg watches the time while it opens a file and waits for data, the loops of this room between
    packets and frames. What neither can cut short is a single call, such as one frame.
    """

    def __init__(self, path: Path | str, seconds: float) -> None:
        """Start the clock.

        Args:
            path: The file, for the message.
            seconds: From now on.

        Raises:
            ValueError: If the time is not positive.
        """
        if not seconds > 0:
            raise UserError(f"time_limit_seconds must be positive, got {seconds}.")
        self._path, self._seconds = path, seconds
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Until the end; 0 when it is over."""
        return max(self._end - time.monotonic(), 0.0)

    def check(self) -> None:
        """Go on only in time.

        Raises:
            MediaError: If the time is over.
        """
        if not self.seconds_left:
            raise MediaError(
                f"{self._path}: was not read within {self._seconds:g} s; a larger "
                "time_limit_seconds gives it more."
            )


def packets(
    container: "InputContainer", stream: "VideoStream | AudioStream", deadline: Deadline
) -> Iterator["Packet"]:
    """The packets of one stream from the current position on, an empty one last.

    Raises:
        MediaError: If the time is over.
    """
    # PyAV would pass over any number of other streams' packets without coming back.
    for packet in container.demux():
        deadline.check()
        # The empty packets at the end all state the index 0.
        if packet.stream.index == stream.index:
            yield packet


def frames(
    container: "InputContainer", stream: "VideoStream | AudioStream", deadline: Deadline
) -> Iterator[Any]:
    """The frames of one stream (``av.VideoFrame`` or ``av.AudioFrame``) from the position on.

    AVI says when frames are decoded, not when they are shown; FFmpeg's guess is wrong where their
    order differs. They are shown one by one as they leave the decoder, so each gets the time of the
    packet that drove it out.

    Raises:
        MediaError: If the time is over.
    """
    is_shown_as_decoded = stream.type == "video" and container.format.name == "avi"
    slot = (stream.start_time or 0) - 1
    for packet in packets(container, stream, deadline):
        for frame in packet.decode():
            deadline.check()
            if is_shown_as_decoded:
                slot = frame.pts = slot + 1 if frame.dts is None else frame.dts
            yield frame
