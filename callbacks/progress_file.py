"""ProgressFile: how far a training is, for who watches it from outside."""

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from callbacks.log_interval import is_logged
from musicinfuser.atomic_files import write_text
from musicinfuser.throw_away import throw_away_mode

PROGRESS_NAME = "progress.json"


class ProgressFile(L.Callback):
    """Writes ``<trainer.default_root_dir>/progress.json`` at the logging interval and at the end.

    Fields: ``step`` and ``max_steps`` in optimizer steps, ``loss`` as ``train/loss`` is logged, of
    a module that logs none that of the last batch (null before the first), and
    ``seconds_per_step``, the mean since this process started; at the end also ``ended``: true,
    unless a signal or an error cut the training off.
    """

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._loss: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter(), trainer.global_step
        self._write(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write at the interval."""
        if is_logged(trainer, batch_idx):
            if (loss := trainer.callback_metrics.get("train/loss")) is None:
                own = outputs["loss"] if isinstance(outputs, dict) else outputs
                loss = own * trainer.accumulate_grad_batches
            self._loss = float(loss)
            self._write(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write where the training ended, also if it had nothing to do."""
        self._write(trainer, ended=True)

    def _write(self, trainer: L.Trainer, **more: bool) -> None:
        if not trainer.is_global_zero or throw_away_mode(trainer):
            return
        seconds, first = self._start or (0.0, trainer.global_step)
        num_steps = trainer.global_step - first
        progress = {
            "step": trainer.global_step,
            "max_steps": trainer.max_steps,
            "loss": self._loss,
            "seconds_per_step": (time.perf_counter() - seconds) / num_steps if num_steps else None,
        } | more
        write_text(Path(trainer.default_root_dir) / PROGRESS_NAME, json.dumps(progress) + "\n")
