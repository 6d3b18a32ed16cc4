"""The one error of unreadable media, and of media files that cannot be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from musicinfuser import atomic_files
from musicinfuser.errors import UserError, WriteError, printable


class MediaError(UserError):
    """A media file cannot be read or written. The message is one sentence that names the file."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def reason(error: BaseException) -> str:
    """What an exception says, on one line and without the file name and the full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """As `atomic_files.atomic_file`, for media.

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
