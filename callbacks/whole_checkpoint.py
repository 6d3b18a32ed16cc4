"""WholeCheckpoint: Lightning's ModelCheckpoint for runs that are killed, cut off and resumed."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoint_files import (
    WholeCheckpointIO,
    newest_checkpoint,
    remove_unfinished,
)
from callbacks.sigterm import NOTICE
from callbacks.throw_away import throw_away_mode


class WholeCheckpoint(ModelCheckpoint):
    """Every option of ModelCheckpoint, and four promises.

    Files are written whole or not at all. ``ckpt_path: last`` takes the checkpoint of the highest
    step in the folder that can be read to the last byte, and names those it passes over. Trainings
    to throw away (`throw_away_mode`) neither save nor take up any. On SIGTERM the current optimizer
    step is finished and saved, and the process exits with code 0; the same command goes on from
    there. A validation or samples under way are given up.
    """

    _loops_after_step: dict[str, Any] | None = None
    _save_as_after_step = False
    _step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take over the writing of files, unless the user chose who writes them."""
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        if stage != "fit" or throw_away_mode(trainer):
            return  # another training may be writing there
        if trainer.is_global_zero and self.is_local:
            remove_unfinished(str(self.dirpath))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for SIGTERM."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step
        self._loops_after_step, self._save_as_after_step = None, False
        NOTICE.listen(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time, and leave after a step when asked to."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        is_leaving = NOTICE.agreed(trainer)
        if is_leaving or _validation_follows(trainer):
            self._loops_after_step = trainer.fit_loop.state_dict()
        if is_leaving:
            self._save_now(trainer)
            NOTICE.leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what is left to save; Lightning's own forgets modes in which nothing is kept."""
        if not throw_away_mode(trainer):
            super().on_train_end(trainer, pl_module)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave a validation within training; several processes leave it together at its end."""
        if NOTICE.received and trainer.world_size == 1 and trainer.state.fn == "fit":
            NOTICE.leave(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save when it is time, and leave when asked to."""
        super().on_validation_end(trainer, pl_module)
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_training and NOTICE.agreed(trainer):
            NOTICE.leave(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save the step that a validation followed in which SIGTERM came."""
        if not isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)
        elif throw_away_mode(trainer):
            return
        elif self._loops_after_step is not None and not trainer.sanity_checking:
            # Loops count the validation that was cut off; resumed, it would go on in its middle.
            self._save_as_after_step = True
            self._save_now(trainer)
            rank_zero_info(
                f"SIGTERM: stopped after step {trainer.global_step}, which "
                f"{self._last_checkpoint_saved} holds; the same command goes on from there."
            )

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the counters as they were after the optimizer step."""
        if self._save_as_after_step:
            checkpoint["loops"]["fit_loop"] = self._loops_after_step

    def _save_now(self, trainer: L.Trainer) -> None:
        """Save this step where `last` is found, unless it is saved."""
        if self._should_skip_saving_checkpoint(trainer):
            return
        metrics = self._monitor_candidates(trainer)
        if self.save_last is not True:
            self._save_checkpoint(trainer, self.format_checkpoint_name(metrics))
        self._save_last_checkpoint(trainer, metrics)

    def _should_skip_saving_checkpoint(self, trainer: L.Trainer) -> bool:
        return bool(throw_away_mode(trainer)) or super()._should_skip_saving_checkpoint(trainer)

    def _should_save_on_exception(self, trainer: L.Trainer) -> bool:
        return not throw_away_mode(trainer) and super()._should_save_on_exception(trainer)

    def _find_last_checkpoints(self, trainer: L.Trainer) -> set[str]:
        """What Lightning takes for ``ckpt_path: last``."""
        if not self.is_local:
            return super()._find_last_checkpoints(trainer)
        if trainer.state.fn == "fit" and throw_away_mode(trainer):
            return set()
        newest = newest_checkpoint(*checkpoint_folders(trainer))
        return set() if newest is None else {str(newest)}

    @property
    def is_local(self) -> bool:
        """Whether it is known where files go, and that is a folder of this machine."""
        return self.dirpath is not None and "://" not in str(self.dirpath)


def _validation_follows(trainer: L.Trainer) -> bool:
    """Whether the loop may validate after this batch; reading all its counters costs 0.6 ms."""
    if trainer._val_check_time_interval is not None:  # type: ignore[attr-defined]
        return True
    fit_loop = trainer.fit_loop
    assert fit_loop._data_fetcher is not None
    return fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher)


def checkpoint_folders(trainer: L.Trainer) -> list[Path]:
    """Where `WholeCheckpoint` writes, and ``ckpt_path: last`` looks, on this machine."""
    return [
        Path(str(callback.dirpath))
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, WholeCheckpoint) and callback.is_local
    ]


def last_checkpoint(trainer: L.Trainer) -> str | None:
    """The newest checkpoint of a run: what it wrote, else what it started from."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback._last_checkpoint_saved:
            return str(Path(callback._last_checkpoint_saved))
    return str(trainer.ckpt_path) if trainer.ckpt_path else None
