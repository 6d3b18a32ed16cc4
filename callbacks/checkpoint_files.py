"""Checkpoint files: atomic writing, and finding the newest one that can be read."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from musicinfuser.atomic_files import atomic_file
from musicinfuser.errors import UserError, links

SUFFIX = ".ckpt"
# The names `atomic_file` gives to files under way.
_UNFINISHED = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(SUFFIX)}")


class CheckpointError(UserError):
    """A checkpoint cannot be written or read."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes with `atomic_file`: the file is on the disk before it takes its name.

    Lightning's own goes through the system's temporary folder; where that is another file system
    the last move is a copy, and a kill during it leaves half a file under the final name. This one
    also needs no second copy of the checkpoint in memory.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            CheckpointError: The disk is full or refuses; what was at ``path`` is still there.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} could not be written ({_reason(error)}); make room, then repeat the "
                "command: it goes on from the last complete checkpoint."
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            CheckpointError: The file is damaged.
        """
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except FileNotFoundError:
            raise
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            raise CheckpointError(
                f"{path} cannot be read as a checkpoint ({_reason(error)}); give another "
                "--ckpt_path, or `last` for the newest one that can."
            ) from error


def newest_checkpoint(*folders: str | Path) -> Path | None:
    """What ``ckpt_path: last`` means for every command; a warning names the files passed over.

    Raises:
        CheckpointError: Only damaged files are left.
    """
    newest, faults = newest_of(checkpoints_in(*folders))
    unreadable = "; ".join(f"{path} ({reason})" for path, reason in faults.items())
    if faults and newest is None:
        raise CheckpointError(
            f"no checkpoint can be read, only damaged ones are left: {unreadable}; move them away "
            "to start anew, or give another --ckpt_path."
        )
    if faults:
        rank_zero_warn(f"passed over what cannot be read: {unreadable}; taking {newest}.")
    return newest


def newest_of(paths: Iterable[Path]) -> tuple[Path | None, dict[Path, str]]:
    """The checkpoint of the highest step whose every byte is as it was written.

    At the same step a file called ``last`` is preferred. Of the others only the header is read.

    Returns:
        The checkpoint, None where no file is readable, and why others cannot be read.
    """
    steps, faults = steps_of(paths)
    for path in sorted(steps, key=lambda p: (steps[p], p.stem.startswith("last")), reverse=True):
        damaged = _damaged_part(path)
        if damaged is None:
            return path, faults
        faults[path] = f"its part {damaged} is damaged"
    return None, faults


def checkpoints_in(*folders: str | Path) -> list[Path]:
    """The checkpoints in some folders, without those under way."""
    found = {path for folder in folders for path in Path(folder).glob(f"*{SUFFIX}")}
    return sorted(path for path in found if not path.name.startswith("."))


def steps_of(paths: Iterable[Path]) -> tuple[dict[Path, int], dict[Path, str]]:
    """The step of each checkpoint, of which only the header is read, and why others have none."""
    steps: dict[Path, int] = {}
    faults: dict[Path, str] = {}
    for path in paths:
        try:
            header = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            steps[path] = int(header["global_step"])
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            faults[path] = _reason(error)
    return steps, faults


def remove_unfinished(folder: str | Path) -> None:
    """Remove what a killed process left of checkpoints it was writing; big files, of no use."""
    for path in Path(folder).glob(f".*{SUFFIX}"):
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _damaged_part(path: Path) -> str | None:
    """The first part whose check sum is wrong; torch writes check sums, but reads without."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return _reason(error)


def _reason(error: BaseException) -> str:
    """The system's own word where there is one: torch wraps it into a line about its innards."""
    for link in links(error):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
