"""The one error of unreadable media, and the two doors to media files that raise it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicinfuser import atomic_files
from musicinfuser.errors import UserError, WriteError, printable

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from musicinfuser.media.decoding import Deadline


class MediaError(UserError):
    """A media file cannot be read or written. The message is one sentence that names the file."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def reason(error: BaseException) -> str:
    """What an exception says, on one line and without the file name and the full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")


@contextmanager
def reading(path: Path | str, what: str, deadline: "Deadline") -> Iterator["InputContainer"]:
    """Open a container; whatever PyAV raises in the block becomes a `MediaError`.

    Args:
        path: The file to read. Pipes, devices and FFmpeg's lists of other files are refused
            unopened: they may never end.
        what: What is hoped for, e.g. ``"video"``; part of the sentence.
        deadline: Until when FFmpeg may open the file and wait for its data.

    Raises:
        MediaError: For every error in the block that a file can cause, time that is over included.
    """
    import av

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
            yield container
    except MediaError:
        raise
    except (
        av.error.FFmpegError, OSError, IndexError, ValueError, ArithmeticError, MemoryError
    ) as error:  # fmt: skip
        deadline.check()
        raise MediaError(f"{path}: cannot be read as {what} ({reason(error)}).") from error


def picture_stream(container: "InputContainer", path: Path | str) -> "VideoStream":
    """The first stream of moving pictures; a still image or the cover of a song is none.

    Raises:
        MediaError: If there is no such stream.
    """
    from av.stream import Disposition

    # FFmpeg reads one image as a video of one frame, through these demuxers.
    is_still = container.format.name == "image2" or container.format.name.endswith("_pipe")
    for stream in () if is_still else container.streams.video:
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
            return stream
    raise MediaError(f"{path}: has no video stream.")


def sound_stream(container: "InputContainer", path: Path | str) -> "AudioStream":
    """The sound track that players take: FFmpeg's choice, or else the first that can be decoded.

    Raises:
        MediaError: If there is no sound, or none that can be decoded.
    """
    best, tracks = container.streams.best("audio"), container.streams.audio
    # The sort is stable: FFmpeg's choice comes first.
    for stream in sorted(tracks, key=lambda track: track != best):
        if stream.codec_context is not None:
            return stream
    raise MediaError(f"{path}: has no audio stream{' that can be decoded' if tracks else ''}.")


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary name beside ``path``, renamed to it only if the block succeeds.

    Missing parent folders are made. The temporary name keeps the suffix of ``path`` and is
    removed on failure, so nobody meets half a file.

    Raises:
        WriteError: If the disk is full, or may not be written to.
        MediaError: If the file system or the encoder refuses otherwise.
    """
    import av

    try:
        with atomic_files.atomic_file(path) as temporary:
            yield temporary
    except WriteError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be written ({reason(error)}).") from error
