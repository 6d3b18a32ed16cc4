"""Telling files and weights apart by their content, without reading more than is needed."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from musicinfuser.errors import UserError

WHOLE_BYTES = 256 * 2**20
_SAMPLES = 64
_SAMPLE_BYTES = 4096
# The weights that are loaded by default: no variants such as ``model.fp16.safetensors``.
_WEIGHTS = r"(diffusion_pytorch_model|model|pytorch_model)(-\d+-of-\d+)?"
_blake2b = partial(hashlib.blake2b, digest_size=8)
_ALGORITHMS: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256, "blake2b": partial(hashlib.blake2b, digest_size=16),
    "sampled": _blake2b,
}  # fmt: skip
known_digests: dict[str, tuple[list[int], str]] = {}
"""Of files that were read: size and times then, and digest, by algorithm and absolute path."""


class NoModelFilesError(UserError, FileNotFoundError):
    """A folder of a model holds neither config nor weights."""


def fingerprint_folder(folder: str | Path) -> str:
    """A short hash of a model folder: its config and its weights, wherever they were downloaded to.

    Names and sizes count, and bytes: files up to 256 KiB are read whole, of larger ones 64 spans
    of 4 KiB, first and last included. Files of no consequence for the weights do not count.

    Raises:
        FileNotFoundError: The folder does not exist.
        NoModelFilesError: It holds no model file.
    """
    folder = Path(folder)
    files = [path for path in [folder / "config.json"] if path.is_file()] + weights_files(folder)
    if not files:
        raise NoModelFilesError(f"{folder} holds no model files; get the part again.")
    digest = _blake2b()
    for path in files:
        digest.update(f"{path.name}:{path.stat().st_size};".encode())
        _add_samples(path, digest)
    return digest.hexdigest()


def weights_files(folder: Path) -> list[Path]:
    """The files of the weights that are loaded by default; none where there are none."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for suffix in ("safetensors", "bin"):
        if found := [n for n in names if re.fullmatch(rf"{_WEIGHTS}\.{suffix}", n)]:
            return [folder / name for name in found]
    return []


def file_digest(path: Path, algorithm: Literal["sha256", "blake2b", "sampled"] = "sha256") -> str:
    """A digest of a regular file's content, read again only if its size or times changed.

    Args:
        path: The file.
        algorithm: SHA-256; BLAKE2b of 16 bytes; or ``sampled``, BLAKE2b of 8 bytes of all of it up
            to 256 MiB, of larger files of the size and 64 spans of 4 KiB.

    Raises:
        OSError: It cannot be read, or is a pipe or device, which may never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    name = f"{algorithm}:{path.absolute()}"
    size_and_times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    if name not in known_digests or known_digests[name][0] != size_and_times:
        if algorithm == "sampled" and status.st_size > WHOLE_BYTES:
            digest: Any = _blake2b(f"{status.st_size};".encode())
            _add_samples(path, digest)
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, _ALGORITHMS[algorithm])
        known_digests[name] = size_and_times, digest.hexdigest()
    return known_digests[name][1]


def _add_samples(path: Path, digest: hashlib.blake2b) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
            return
        for i in range(_SAMPLES):
            file.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))


@dataclass(frozen=True)
class FileIdentity:
    """What a file was when something was made of it."""

    num_bytes: int
    modified_ns: int
    """Time of its last change in nanoseconds since 1970."""
    digest: str
    """BLAKE2b of its content, 16 bytes in hex."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Of a file as it is now; all of it is read, once per process.

        Raises:
            OSError: It cannot be read.
        """
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns, file_digest(path, "blake2b"))

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
            is_same = is_untouched and status.st_mtime_ns == self.modified_ns
            return is_same or file_digest(path, "blake2b") == self.digest
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
            num_bytes, modified_ns = attributes["file_bytes"], attributes["file_modified_ns"]
            return cls(int(num_bytes), int(modified_ns), attributes["file_blake2b"])
        except (KeyError, TypeError, ValueError):
            return None
