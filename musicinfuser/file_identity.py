"""Knowing a file again: by size and times, and by its content where these leave it open."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class FileIdentity:
    """What a file was when something was made of it.

    Attributes:
        num_bytes: Its size.
        modified_ns: Time of its last change in nanoseconds since 1970.
        digest: BLAKE2b of its content, 16 bytes in hex.
    """

    num_bytes: int
    modified_ns: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Of a file as it is now; all of it is read, once per process.

        Raises:
            OSError: It cannot be read.
        """
        status = os.stat(path)
        digest = _digest(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return cls(status.st_size, status.st_mtime_ns, digest)

    def is_that_of(self, path: Path, *, noted_ns: int | None = None) -> bool:
        """Whether a file is still the same; it is read only where size and times leave it open.

        What is no regular file, or cannot be read, is another file.

        Args:
            path: The file.
            noted_ns: When this was noted, in nanoseconds since 1970. The file is read if the system
                has changed anything of it since: copying tools set the time of a change themselves.
        """
        try:
            status = os.stat(path)
            if status.st_size != self.num_bytes or not stat.S_ISREG(status.st_mode):
                return False
            is_untouched = noted_ns is None or status.st_ctime_ns <= noted_ns
            return (is_untouched and status.st_mtime_ns == self.modified_ns) or _digest(
                path, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            ) == (self.digest)
        except OSError:
            return False

    def as_attributes(self) -> dict[str, str]:
        """As texts, for the header of what was made of the file."""
        return {
            "file_bytes": str(self.num_bytes),
            "file_modified_ns": str(self.modified_ns),
            "file_blake2b": self.digest,
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str]) -> Self | None:
        """What `as_attributes` wrote; None where it was not written."""
        try:
            return cls(
                int(attributes["file_bytes"]),
                int(attributes["file_modified_ns"]),
                attributes["file_blake2b"],
            )
        except (KeyError, TypeError, ValueError):
            return None


@lru_cache(maxsize=4096)
def _digest(path: Path, num_bytes: int, modified_ns: int, touched_ns: int) -> str:
    """Of the content; size and times are arguments so that a file that changes is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
        ).hexdigest()
