"""A run's folder: one training at a time in it, and no two runs' checkpoints mixed up."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from callbacks.atomic_checkpoint import AtomicCheckpoint, checkpoint_folders
from callbacks.checkpoint_files import checkpoints_in, newest_checkpoint, steps_of
from musicinfuser.errors import UserError
from musicinfuser.folder_lock import holder, locked
from musicinfuser.throw_away import throw_away_mode

LOCK_NAME = ".training.lock"


class RunFolderError(UserError):
    """A training may not start in this folder."""


@contextmanager
def only_training(trainer: L.Trainer) -> Iterator[None]:
    """Keep other trainings out of this one's folders until the block ends or the process does.

    The folders are ``trainer.default_root_dir`` and those of checkpoints. The main process (rank 0)
    holds the locks. A training to throw away writes nothing there and needs none.

    Raises:
        RunFolderError: Another training works there, or the folder cannot be written.
    """
    if mode := throw_away_mode(trainer):
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [c for c in callbacks if not _saves_in_any_mode(c)]
        rank_zero_info(
            f"{mode}: nothing is kept of this training: it writes no checkpoint, export or record, "
            "and starts at step 0 unless --ckpt_path names a file."
        )
    elif trainer.is_global_zero:
        with ExitStack() as held:
            if "://" not in trainer.default_root_dir:
                root = Path(trainer.default_root_dir).resolve()
                _hold(held, root, root / LOCK_NAME)
            for folder in {folder.resolve() for folder in checkpoint_folders(trainer)}:
                _hold(held, folder, _beside(folder))
            yield
        return
    yield


def check_start(folders: Iterable[Path], ckpt_path: str | None) -> None:
    """Refuse a training below the newest checkpoint of its folders.

    ``ckpt_path: last``, in `fit`, `validate`, `predict` and sweeps, takes the highest step there
    is. What such a training saves would be passed over for what an earlier one left.

    Raises:
        RunFolderError: Says what lies there and what to do.
    """
    there = checkpoints_in(*folders)
    if not there or ckpt_path in ("last", "best", "hpc"):
        return
    steps, _ = steps_of(there)
    newest = max(there, key=lambda path: steps.get(path, -1))
    begins = "--ckpt_path is null, which starts at step 0"
    if ckpt_path is not None:
        starts, _ = steps_of([Path(ckpt_path)])
        start = starts.get(Path(ckpt_path))
        if start is None or start >= steps.get(newest, 0):
            return  # what cannot be read is named when it is loaded
        begins = f"--ckpt_path starts at step {start}"
    of_step = f" of step {steps[newest]}" if newest in steps else ", which cannot be read"
    raise RunFolderError(
        f"{begins}, but {newest.parent} holds {newest.name}{of_step}, and `last` would go on "
        "taking that; move those checkpoints away, give another trainer.default_root_dir, or "
        "--ckpt_path last to go on from there."
    )


def checkpoint_at(path: str) -> str:
    """A checkpoint's file as it is; of a folder the one that ``last`` would take there.

    Raises:
        RunFolderError: A folder without one.
    """
    if not Path(path).is_dir():
        return path
    newest = newest_checkpoint(path)
    if newest is None:
        raise RunFolderError(f"--ckpt_path names the folder {path}, which holds no checkpoint.")
    return str(newest)


def _saves_in_any_mode(callback: L.Callback) -> bool:
    is_lightnings = isinstance(callback, ModelCheckpoint)
    return is_lightnings and not isinstance(callback, AtomicCheckpoint)


def _beside(folder: Path) -> Path:
    """The lock of a folder of checkpoints, which holds nothing else; inside if it must be."""
    if os.access(folder.parent, os.W_OK) or not folder.parent.exists():
        return folder.with_name(f".training.{folder.name}.lock")
    return folder / LOCK_NAME


def _hold(held: ExitStack, folder: Path, path: Path) -> None:
    try:
        lock = held.enter_context(locked(path))
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written ({error.strerror}); give another trainer.default_root_dir."
        ) from error
    if lock is None:
        raise RunFolderError(
            f"another training works in {folder} ({holder(path)}), and two would write over each "
            "other; wait for it, end it, or give another trainer.default_root_dir."
        )
