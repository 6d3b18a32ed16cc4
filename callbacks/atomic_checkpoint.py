"""AtomicCheckpoint: Lightning's ModelCheckpoint for runs that are killed, cut off and resumed."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoint_files import (
    AtomicCheckpointIO,
    newest_checkpoint,
    remove_unfinished,
)
from callbacks.sigterm import NOTICE
from callbacks.step_counters import SPLIT_KEY, check_samples, set_after_step, split_of
from musicinfuser.throw_away import throw_away_mode


class AtomicCheckpoint(ModelCheckpoint):
    """Every option of ModelCheckpoint, and four promises.

    - Files are written whole or not at all.
    - ``ckpt_path: last`` takes the checkpoint of the highest step in the folder that can be read to
      the last byte, and names those it passes over. Trainings to throw away (`throw_away_mode`)
      neither save nor take up any.
    - However a run ends, the last optimizer step done is saved where ``last`` is found; only
      ``save_top_k: 0`` without ``save_last`` leaves that out at a normal end. On SIGTERM or a first
      ctrl-C the step under way is finished, a validation or samples are given up, and the process
      exits with code 0 (130 after ctrl-C).
    - Every checkpoint is that of a whole optimizer step. A resumed run goes on with the next one,
      also if it accumulates another number of batches for the same number of samples.
    """

    _step = 0
    _has_trained = False
    _is_stop_due = False

    @property
    def state_key(self) -> str:
        """As ModelCheckpoint's, with the class's first name, which older checkpoints hold."""
        return super().state_key.replace(type(self).__qualname__, "WholeCheckpoint", 1)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take over the writing of files, unless the user chose who writes them."""
        super().setup(trainer, pl_module, stage)
        self._has_trained = self._is_stop_due = False
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if stage != "fit" or throw_away_mode(trainer):
            return  # another training may be writing there
        if trainer.is_global_zero and self.is_local:
            remove_unfinished(str(self.dirpath))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for SIGTERM and ctrl-C."""
        super().on_train_start(trainer, pl_module)
        # What a run starts from is saved already.
        self._step = self._last_global_step_saved = trainer.global_step
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
        self._put_off_stop(trainer)
        if trainer.global_step == self._step:
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._step, self._has_trained = trainer.global_step, True
        if NOTICE.agreed(trainer):
            self._save_now(trainer)
            NOTICE.leave(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave a validation within training; several processes leave it together at its end."""
        if NOTICE.received and trainer.world_size == 1 and trainer.state.fn == "fit":
            NOTICE.leave(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save when it is time, and leave when asked to."""
        super().on_validation_end(trainer, pl_module)
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_training:
            self._put_off_stop(trainer)
            if NOTICE.agreed(trainer):
                NOTICE.leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last step, whatever ended the run."""
        if self.save_last or self.save_top_k:
            self._save_now(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say so if there was nothing to do."""
        if not self._has_trained and self is _keepers_of_last(trainer)[0]:
            start = f"{trainer.ckpt_path} is at step" if trainer.ckpt_path else "the run is at step"
            rank_zero_info(
                f"Nothing was trained: {start} {trainer.global_step}, {_why_not_further(trainer)}"
            )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save the last step if SIGTERM or ctrl-C ended the run."""
        if not isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)
        elif trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_now(trainer)
            exception.code = NOTICE.exit_code
            saved = None if throw_away_mode(trainer) else last_checkpoint(trainer)
            holder = f", which {saved} holds; the same command goes on from there" if saved else ""
            rank_zero_info(
                f"{NOTICE.signal.name}: stopped after step {trainer.global_step}{holder}."
            )

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the counters as they were after the step; note how its samples are split."""
        checkpoint[SPLIT_KEY] = split = split_of(trainer)
        if pl_module.automatic_optimization:
            accumulation = split["accumulate_grad_batches"]
            set_after_step(checkpoint["loops"]["fit_loop"], accumulation, is_same_split=True)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the counters where this run's accumulation has them after that step.

        Raises:
            CheckpointError: An optimizer step had another number of samples.
        """
        if trainer.state.fn != "fit":
            return
        stored, split = checkpoint.get(SPLIT_KEY, {}), split_of(trainer)
        check_samples(stored, split.get("samples_per_step"))
        accumulation = split["accumulate_grad_batches"]
        if pl_module.automatic_optimization:
            is_same = stored.get("accumulate_grad_batches") == accumulation
            set_after_step(checkpoint["loops"]["fit_loop"], accumulation, is_same_split=is_same)
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs < epoch["completed"]:
            # Nothing is left to do; Lightning would stop with an error.
            epoch |= dict.fromkeys(epoch, trainer.max_epochs)

    def _put_off_stop(self, trainer: L.Trainer) -> None:
        """Let accumulated gradients come to their optimizer step before a run stops."""
        if trainer.fit_loop._should_accumulate():
            self._is_stop_due |= trainer.should_stop
            trainer.should_stop = False
        elif self._is_stop_due:
            trainer.should_stop, self._is_stop_due = True, False

    def _save_now(self, trainer: L.Trainer) -> None:
        """Save this step where `last` is found, unless it is saved."""
        if self not in _keepers_of_last(trainer) or self._should_skip_saving_checkpoint(trainer):
            return
        metrics = self._monitor_candidates(trainer)
        if self.save_top_k if self.save_last == "link" else not self.save_last:
            name = self.format_checkpoint_name(metrics)
            if self.file_exists(name, trainer):  # such as the best so far
                name = self.format_checkpoint_name(metrics, self.CHECKPOINT_NAME_LAST)
            self._save_checkpoint(trainer, name)
        self._save_last_checkpoint(trainer, metrics)

    def _should_skip_saving_checkpoint(self, trainer: L.Trainer) -> bool:
        return bool(throw_away_mode(trainer)) or super()._should_skip_saving_checkpoint(trainer)

    def _should_save_on_exception(self, trainer: L.Trainer) -> bool:
        return not throw_away_mode(trainer) and super()._should_save_on_exception(trainer)

    def _find_last_checkpoints(self, trainer: L.Trainer) -> set[str]:
        """What Lightning takes for ``ckpt_path: last``."""
        if folder_of(self, trainer) is None:
            return super()._find_last_checkpoints(trainer)
        if trainer.state.fn == "fit" and throw_away_mode(trainer):
            return set()
        newest = newest_checkpoint(*checkpoint_folders(trainer))
        return set() if newest is None else {str(newest)}

    @property
    def is_local(self) -> bool:
        """Whether it is known where files go, and that is a folder of this machine."""
        return self.dirpath is not None and "://" not in str(self.dirpath)


def _keepers_of_last(trainer: L.Trainer) -> list[AtomicCheckpoint]:
    """Those that are to keep the last step; where none is, the first one does at a run's end."""
    ours = [c for c in trainer.checkpoint_callbacks if isinstance(c, AtomicCheckpoint)]
    return [c for c in ours if c.save_last] or ours[:1]


def _why_not_further(trainer: L.Trainer) -> str:
    """What kept a run from its first step, and what changes that."""
    step, last = trainer.global_step, trainer.max_steps
    if last != -1 and step >= last:
        beyond = "and" if step == last else "beyond"
        return f"{beyond} trainer.max_steps {last}; raise it to train on."
    if trainer.should_stop:
        return "and a callback stops it there (trainer.max_time, if it is used up); give it more."
    return (
        "and its limit of epochs or batches is reached (trainer.max_epochs, limit_train_batches)."
    )


def folder_of(callback: ModelCheckpoint, trainer: L.Trainer) -> Path | None:
    """Where a callback writes, also before the run starts; None if not on this machine."""
    # Without a dirpath it follows from the logger; Lightning has no public name for that.
    folder = str(callback._ModelCheckpoint__resolve_ckpt_dir(trainer))  # type: ignore[attr-defined]
    return None if "://" in folder else Path(folder)


def checkpoint_folders(trainer: L.Trainer) -> list[Path]:
    """Where `AtomicCheckpoint` writes, and ``ckpt_path: last`` looks, on this machine."""
    ours = [c for c in trainer.checkpoint_callbacks if isinstance(c, AtomicCheckpoint)]
    return [folder for c in ours if (folder := folder_of(c, trainer)) is not None]


def last_checkpoint(trainer: L.Trainer) -> str | None:
    """The newest checkpoint of a run: what it wrote, else what it started from."""
    ours = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    wrote = [c for c in ours if c._last_checkpoint_saved]
    if wrote:
        newest = max(wrote, key=lambda callback: callback._last_global_step_saved)
        return str(Path(newest._last_checkpoint_saved))
    return str(trainer.ckpt_path) if trainer.ckpt_path else None
