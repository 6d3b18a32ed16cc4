"""Files that are written whole or not at all, also where the power fails."""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from musicinfuser.errors import UserError, write_error

# Reading the mask means setting it, which no thread should see.
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def named_write_errors(path: str | Path) -> Iterator[None]:
    """Name the file or folder that a block writes where the disk is full or may not be written to.

    Raises:
        WriteError: With the path and what to do; every other error passes.
    """
    try:
        yield
    except Exception as error:
        if refusal := write_error(error, path):
            raise refusal from error
        raise


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and move it there only if the block succeeds.

    The data are on the disk (fsync) before the file gets its name, and the name is before the block
    ends. Missing parent folders are made. The temporary name keeps the suffix of ``path`` and is
    removed on failure, so a reader never meets half a file. Whoever the umask lets read new files
    can read this one, though some writers (safetensors) keep theirs to the user.

    Raises:
        WriteError: The disk is full, or may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    with named_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.chmod(temporary.stat().st_mode | 0o666 & ~_UMASK)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder beside ``path`` and put it there only if the block succeeds.

    A folder that is already there is replaced as a whole, nothing of it stays. Killed between the
    two renames that takes, the old one is left under a name with a dot. As with `atomic_file`, the
    data are on the disk before the folder gets its name.

    Raises:
        WriteError: The disk is full, or may not be written to.
    """
    path = Path(path)
    temporary, former = (path.with_name(f".{uuid.uuid4().hex}") for _ in range(2))
    with named_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            yield temporary
            for inside in (*temporary.rglob("*"), temporary):
                _sync(inside)
            if path.exists():
                os.replace(path, former)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            for folder in (temporary, former):
                shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file's data, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(folder: str | Path, *, option: str) -> None:
    """Try whether a folder can be made or written; nothing is left there. Not of ``a://b``.

    Raises:
        UserError: It cannot; names ``option``, by which the user set it.
    """
    if "://" in str(folder):
        return
    folder = Path(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    probe = there / f".{uuid.uuid4().hex}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); give another {option}."
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
