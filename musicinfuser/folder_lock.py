"""Locks on folders that end with the process that holds them."""

import errno
import fcntl
import os
import socket
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

_TRIES, _PAUSE_SECONDS = 10, 0.05
# What file systems without locks answer, such as NFS mounted with `nolock` or some of Lustre.
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: "weakref.WeakSet[IO[str]]" = weakref.WeakSet()


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold a lock file; gives its file descriptor, or None if another process holds it.

    The system takes the lock away when this process ends, however that happens. Processes forked
    from it, such as the workers of a data loader, do not hold it. A program that is started with
    the descriptor (``pass_fds``) holds the lock as well. Where the file system has no locks, it is
    said in a warning and the work goes on without.

    Args:
        path: The file; made with its folder if absent, and left there. It names who holds the lock.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _take(file):
            yield None
            return
        _held.add(file)
        with suppress(OSError):  # who holds it is only for people
            file.truncate(0)
            now = datetime.now().astimezone().isoformat(" ", timespec="seconds")
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
            file.flush()
        yield file.fileno()


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return False


def holder(path: Path) -> str:
    """Who holds a lock file, in a few words."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text() or "another process"
    return "another process"


def _take(file: IO[str]) -> bool:
    for _ in range(_TRIES):  # who only looks holds it for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            warnings.warn(
                f"{file.name}: this file system has no locks ({error.strerror}), so nothing stops "
                "a second process from working in the folder; see to it that only one does.",
                stacklevel=4,
            )
            return True
    return False


def _let_go() -> None:
    for file in list(_held):
        file.close()


os.register_at_fork(after_in_child=_let_go)
