"""A run's folder: its config, one training at a time in it, and the checkpoint a command loads."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

from callbacks.atomic_checkpoint import AtomicCheckpoint, checkpoint_folders, folder_of
from callbacks.checkpoint_files import checkpoints_in, newest_checkpoint, steps_of
from musicinfuser.atomic_files import require_writable, write_text
from musicinfuser.errors import UserError
from musicinfuser.folder_lock import holder, locked
from musicinfuser.setting_checks import check_file
from musicinfuser.throw_away import throw_away_mode

LOCK_NAME = ".training.lock"


class RunFolderError(UserError):
    """A command may not work in this folder."""


class RunRecord(SaveConfigCallback):
    """Saves a run's full config as ``config_<command>.yaml`` with the first batch of its work.

    Commands do not overwrite each other's, and one that is refused before it does anything, or a
    training to throw away, leaves the record of the run as it is.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note where the file goes; every process must read `trainer.log_dir`."""
        assert trainer.state.fn is not None
        # Without a logger Lightning's answer is the run's folder, where nothing looks for it.
        log_dir = trainer.log_dir if trainer.loggers else Path(trainer.default_root_dir, "logs")
        self._path = Path(str(log_dir), f"config_{trainer.state.fn.value}.yaml")

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Save the record, once the work has really started."""
        is_fit = trainer.state.fn == "fit"
        if self.already_saved or is_fit and (not trainer.training or throw_away_mode(trainer)):
            return
        self.already_saved = True
        if trainer.is_global_zero:
            write_text(self._path, self.text())

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start

    def text(self) -> str:
        """What a training works with; where it trained no step, what the one before did."""
        if not self.already_saved and self._path.is_file():
            return self._path.read_text(encoding="utf-8")
        return self.parser.dump(self.config, skip_none=False, skip_validation=True)


@contextmanager
def only_training(trainer: L.Trainer, ckpt_path: str | None = "last") -> Iterator[None]:
    """Keep other trainings out of this one's folders until the block ends or the process does.

    The folders are ``trainer.default_root_dir`` and those of checkpoints. The main process (rank 0)
    holds the locks. A training to throw away writes nothing there and needs none. Also refuses a
    start (``ckpt_path``) below what lies there.

    Raises:
        RunFolderError: Another training works there or was further, or the folder cannot be
            written.
    """
    with ExitStack() as held:
        if mode := throw_away_mode(trainer):
            callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
            callbacks[:] = [  # Lightning's own checkpoints are saved in any mode
                c
                for c in callbacks
                if isinstance(c, AtomicCheckpoint) or not isinstance(c, ModelCheckpoint)
            ]
            rank_zero_info(
                f"{mode}: nothing is kept of this training: it writes no checkpoint, export or "
                "record, and starts at step 0 unless --ckpt_path names a file."
            )
        elif trainer.is_global_zero:
            if "://" not in trainer.default_root_dir:
                root = Path(trainer.default_root_dir).resolve()
                _hold(held, root, root / LOCK_NAME)
            for folder in {folder.resolve() for folder in checkpoint_folders(trainer)}:
                _hold(held, folder, _beside(folder))
        if not mode:
            check_start(checkpoint_folders(trainer), ckpt_path)
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


def checkpoint_to_load(trainer: L.Trainer, command: str, ckpt_path: str | None) -> str | None:
    """What a command loads: ``ckpt_path``, in place of a folder the newest checkpoint there.

    Raises:
        UserError: There is none, or the run's folder cannot be written.
    """
    if trainer.is_global_zero and not throw_away_mode(trainer):
        require_writable(trainer.default_root_dir, option="trainer.default_root_dir")
    path = checkpoint_at(ckpt_path)
    if path != "last" or command == "fit":
        return path
    # AtomicCheckpoint falls back on the files of single steps; Lightning's own does not.
    patterns = {
        folder: "*.ckpt" if isinstance(callback, AtomicCheckpoint) else "last*.ckpt"
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        and (folder := folder_of(callback, trainer)) is not None
    }
    if not any(found for folder, name in patterns.items() for found in folder.glob(name)):
        # Lightning would silently take the model without training.
        raise RunFolderError(
            f"{command} wants the last checkpoint, but there is none in "
            f"{', '.join(map(str, patterns)) or 'the run folder'}; run fit first, give "
            "--ckpt_path FILE, or --ckpt_path null for the model without training."
        )
    return path


def checkpoint_at(ckpt_path: str | None) -> str | None:
    """A checkpoint's file, and a name such as ``last``, as it is; of a folder its newest file.

    Raises:
        UserError: There is no such file, or none in the folder.
    """
    if ckpt_path in (None, "last", "best", "hpc") or "://" in ckpt_path:
        return ckpt_path
    if not Path(ckpt_path).is_dir():
        check_file("--ckpt_path", ckpt_path)
        return ckpt_path
    newest = newest_checkpoint(ckpt_path)
    if newest is None:
        raise RunFolderError(
            f"--ckpt_path names the folder {ckpt_path}, which holds no checkpoint."
        )
    return str(newest)


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
