"""Knowing a file again: by size and time, and by its content where these differ."""

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
        digest = _digest(path, status.st_size, status.st_mtime_ns)
        return cls(status.st_size, status.st_mtime_ns, digest)

    def is_that_of(self, path: Path) -> bool:
        """Whether a file is still the same; it is read only if it has the size, but not the time.

        What is no regular file, or cannot be read, is another file.
        """
        try:
            status = os.stat(path)
            if status.st_size != self.num_bytes or not stat.S_ISREG(status.st_mode):
                return False
            return (
                status.st_mtime_ns == self.modified_ns
                or _digest(path, status.st_size, status.st_mtime_ns) == self.digest
            )
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
def _digest(path: Path, num_bytes: int, modified_ns: int) -> str:
    """Of the content; size and time are arguments so that a file that changes is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
        ).hexdigest()
