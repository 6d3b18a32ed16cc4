"""AtomicCheckpoint: Lightning's ModelCheckpoint for runs that are killed, cut off and resumed."""

from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoint_files import (
    AtomicCheckpointIO,
    CheckpointError,
    newest_checkpoint,
    remove_unfinished,
)
from callbacks.sigterm import NOTICE
from lightning_modules.logged_steps import ends_step
from musicinfuser.throw_away import throw_away_mode

SPLIT_KEY = "split"


class AtomicCheckpoint(ModelCheckpoint):
    """Every option of ModelCheckpoint, and four promises.

    - Files are written atomically.
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

    _has_trained = False
    _is_stop_due = False

    @cached_property  # asked for at every hook
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
        self._last_global_step_saved = trainer.global_step
        NOTICE.listen(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Save when it is time; after a signal, leave after the step."""
        self._put_off_stop(trainer)
        if not ends_step(trainer):
            return
        super().on_train_batch_end(trainer, pl_module, *args)
        self._has_trained = True
        if NOTICE.agreed(trainer):
            self._save_now(trainer)
            NOTICE.leave(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave a validation within training; several processes leave it together at its end."""
        if NOTICE.received and trainer.world_size == 1 and trainer.state.fn == "fit":
            NOTICE.leave(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save when it is time; after a signal, leave."""
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
        if not ends_step(trainer):
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


def set_after_step(fit_loop: dict[str, Any], accumulation: int, *, is_same_split: bool) -> None:
    """Change the state of a fit loop into that of `on_train_batch_end` after its last step.

    A checkpoint holds the weights after a whole number of steps, whenever it is written. Its
    counters of batches may be further on: within accumulated gradients or a validation, or at the
    end of a run. Resumed from there, the batches would no longer fit the steps. Batches are chosen
    by the step (`datamodules.mixing`), so the counters can be set to any split of its samples.

    Args:
        fit_loop: `trainer.fit_loop.state_dict()`, or what a checkpoint holds of it.
        accumulation: Batches per optimizer step from now on.
        is_same_split: Whether the batches counted so far were those of the same accumulation.
    """
    optimizer = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    steps, zeroed = optimizer["step"], optimizer["zero_grad"]
    num_steps = steps["total"]["completed"]
    if not num_steps:
        return
    batches = fit_loop["epoch_loop.batch_progress"]
    total, current = batches["total"], batches["current"]
    in_epoch = steps["current"]["completed"] * accumulation
    if is_same_split:
        in_epoch = min(in_epoch, current["ready"])  # the last step of an epoch may have fewer
        in_run = total["ready"] - current["ready"] + in_epoch
    else:
        in_run = num_steps * accumulation
    # What comes after the step is not done: the end of the batch, and a validation.
    for progress, number in ((total, in_run), (current, in_epoch)):
        progress |= {"ready": number, "started": number, "processed": number}
        progress["completed"] = number - 1
    for since, progress in zeroed.items():
        progress |= dict.fromkeys(progress, steps[since]["completed"])
    is_over = batches["is_last_batch"]
    for progress in fit_loop["epoch_progress"].values():
        progress["ready"] = progress["started"]
        progress["processed"] = progress["completed"] = progress["started"] - (not is_over)
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    for progress in (validation["total"], validation["current"]):
        progress |= dict.fromkeys(progress, 0)
    validation["is_last_batch"] = is_over  # else Lightning counts an epoch that is over twice
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = num_steps - 1


def split_of(trainer: L.Trainer) -> dict[str, int]:
    """How the samples of an optimizer step are shared out.

    Returns:
        ``accumulate_grad_batches``; with a data module that has a batch size also
        ``samples_per_step``, over accumulation and processes.
    """
    accumulation = trainer.accumulate_grad_batches
    split = {"accumulate_grad_batches": accumulation}
    batch_size = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if batch_size is not None:
        split["samples_per_step"] = batch_size * accumulation * trainer.world_size
    return split


def check_samples(stored: dict[str, int], num_samples: int | None) -> None:
    """Refuse to go on with more or fewer samples per optimizer step.

    Which samples a step has follows from its number and theirs, so some would be left out or come
    twice.

    Args:
        stored: What a checkpoint says; one of before this was noted says nothing.
        num_samples: Of an optimizer step of this run; None where it is not known.

    Raises:
        CheckpointError: They differ.
    """
    theirs = stored.get("samples_per_step")
    if theirs is not None and num_samples is not None and theirs != num_samples:
        raise CheckpointError(
            f"the checkpoint was trained with {theirs} samples per optimizer step, this config has "
            f"{num_samples} (data.batch_size x trainer.accumulate_grad_batches x processes); "
            f"choose them so that their product is {theirs}, or start another run in another "
            "trainer.default_root_dir."
        )
