"""Media files opened for reading: one error for whatever fails, and so much time and no more."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicinfuser.media.errors import MediaError, reason
from musicinfuser.setting_checks import check_number

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

TIME_LIMIT_SECONDS = 300.0
"""For one reading of one file; ten hours of sound on a busy machine take less."""


class Deadline:
    """When the reading of a file is given up.

    FFmpeg watches the time while it opens a file and waits for data, the loops of this package
    between packets and frames. What neither can cut short is a single call, such as one frame.
    """

    def __init__(self, path: Path | str, seconds: float) -> None:
        """Start the clock, for seconds above 0; the file is for the message."""
        check_number("time_limit_seconds", seconds, above=0, may_be_infinite=True)
        self._path, self._seconds = path, seconds
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Until the end; 0 when it is over."""
        return max(self._end - time.monotonic(), 0.0)

    def check(self) -> None:
        """Raise a `MediaError` if the time is over."""
        if not self.seconds_left:
            raise MediaError(
                f"{self._path}: was not read within {self._seconds:g} s; a larger "
                "time_limit_seconds gives it more."
            )


class MediaFile:
    """An open media file, as `reading` gives it.

    Attributes:
        path: As it was given; named in errors.
        container: PyAV's.
        deadline: When to give it up.
    """

    def __init__(
        self, path: Path | str, what: str, container: "InputContainer", deadline: Deadline
    ) -> None:
        self.path, self.container, self.deadline = path, container, deadline
        self._what = what

    def again(self) -> "AbstractContextManager[MediaFile]":
        """The same file opened anew, with what is left of the time."""
        return reading(self.path, self._what, self.deadline)

    @cached_property
    def picture(self) -> "VideoStream":
        """The first stream of moving pictures; a still image or the cover of a song is none.

        Raises:
            MediaError: If there is no such stream.
        """
        from av.stream import Disposition

        # FFmpeg reads one image as a video of one frame, through these demuxers.
        kind = self.container.format.name
        is_still = kind == "image2" or kind.endswith("_pipe")
        for stream in () if is_still else self.container.streams.video:
            is_cover = stream.disposition & Disposition.attached_pic
            if stream.codec_context is not None and not is_cover:
                # Threads over frames report damage at one time and miss it at another; whoever
                # reads many clips reads them in several processes.
                stream.thread_type = "SLICE"
                return stream
        raise MediaError(f"{self.path}: has no video stream.")

    @cached_property
    def sound(self) -> "AudioStream":
        """The sound track that players take: FFmpeg's choice, or else the first that decodes.

        Raises:
            MediaError: If there is no sound, or none that can be decoded.
        """
        streams = self.container.streams
        best, tracks = streams.best("audio"), streams.audio
        # The sort is stable: FFmpeg's choice comes first.
        for stream in sorted(tracks, key=lambda track: track != best):
            if stream.codec_context is not None:
                return stream
        which = " that can be decoded" if tracks else ""
        raise MediaError(f"{self.path}: has no audio stream{which}.")

    def packets(self, stream: "VideoStream | AudioStream") -> Iterator["Packet"]:
        """The packets of one stream from the current position on, an empty one last.

        Raises:
            MediaError: If the time is over.
        """
        # PyAV would pass over any number of other streams' packets without coming back.
        for packet in self.container.demux():
            self.deadline.check()
            # The empty packets at the end all state the index 0.
            if packet.stream.index == stream.index:
                yield packet

    def pictures(self) -> Iterator[Any]:
        """Each ``av.VideoFrame`` of the picture from the current position on.

        AVI says when frames are decoded, not when they are shown; FFmpeg's guess is wrong where
        their order differs. They are shown one by one as they leave the decoder, so each gets the
        time of the packet that drove it out.

        Raises:
            MediaError: If the time is over.
        """
        is_shown_as_decoded = self.container.format.name == "avi"
        slot = (self.picture.start_time or 0) - 1
        for packet in self.packets(self.picture):
            for frame in packet.decode():
                self.deadline.check()
                if is_shown_as_decoded:
                    slot = frame.pts = slot + 1 if frame.dts is None else frame.dts
                yield frame


@contextmanager
def reading(
    path: Path | str, what: str, time_limit_seconds: float | Deadline
) -> Iterator[MediaFile]:
    """Open a file; whatever PyAV raises in the block becomes a `MediaError`.

    Args:
        path: The file to read. Pipes, devices and FFmpeg's lists of other files are refused
            unopened: they may never end.
        what: What is hoped for, e.g. ``"video"``; part of the sentence.
        time_limit_seconds: When to give it up.

    Raises:
        MediaError: For every error in the block that a file can cause, time that is over included.
    """
    import av

    limit = time_limit_seconds
    deadline = limit if isinstance(limit, Deadline) else Deadline(path, limit)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MediaError(f"{path}: is no regular file.")
        # FFmpeg would open whatever such a list names, pipes included.
        with open(path, "rb") as file:
            if file.read(8) == b"ffconcat":
                raise MediaError(f"{path}: is a list of other files.")
        # An absolute name, since "a:b.mp4" would be taken for a protocol called "a".
        # From version 19 on PyAV does so by itself, and has no such option.
        is_strict = int(av.__version__.split(".")[0]) < 19
        lenient: dict[str, Any] = {"metadata_errors": "replace"} if is_strict else {}
        with av.open(os.path.abspath(path), timeout=deadline.seconds_left, **lenient) as container:
            yield MediaFile(path, what, container, deadline)
    except MediaError:
        raise
    except (
        av.error.FFmpegError, OSError, IndexError, ValueError, ArithmeticError, MemoryError
    ) as error:  # fmt: skip
        deadline.check()
        raise MediaError(f"{path}: cannot be read as {what} ({reason(error)}).") from error
