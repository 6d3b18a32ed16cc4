"""TrainingSpeed: samples per second, without waiting for the device at every step."""

import time
from typing import Any

import lightning.pytorch as L

from callbacks.log_interval import is_logged


class TrainingSpeed(L.Callback):
    """Logs ``train/samples_per_second`` and ``train/seconds_per_step`` at the logging interval.

    Averaged since the last log. Time spent in validation is left out; checkpoints and samples in
    between count. The device is not waited for: on a GPU a figure may lag by the steps in flight.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._step = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after a pause."""
        if self._start is None:
            self._start, self._step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log at the interval."""
        if self._start is None or not is_logged(trainer, batch_idx):
            return
        num_steps = trainer.global_step - self._step
        seconds = (time.perf_counter() - self._start) / num_steps
        num_samples = len(batch) * trainer.accumulate_grad_batches * trainer.world_size
        pl_module.log("train/seconds_per_step", seconds)
        pl_module.log("train/samples_per_second", num_samples / seconds)
        self._start = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._start = None
