"""Speed, memory and progress of a training while it runs."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from callbacks.step_callback import StepCallback
from lightning_modules.logged_steps import log_numbers
from musicinfuser.atomic_files import write_text
from musicinfuser.throw_away import throw_away_mode

PROGRESS_NAME = "progress.json"
# What `getrusage` counts in.
_RAM_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
_GB = 1e9


class TrainingSpeed(StepCallback):
    """Logs ``train/samples_per_second`` and ``train/seconds_per_step`` at the logging interval.

    Averaged since the last log. Time spent in validation is left out; checkpoints and samples in
    between count. On a GPU a figure may lag by the steps in flight: unlike Lightning's
    `ThroughputMonitor` this does not wait for the device after every batch.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._step = self._num_samples = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after a pause; count the samples."""
        if self._start is None:
            self._start, self._step = time.perf_counter(), trainer.global_step
            self._num_samples = 0
        self._num_samples += len(batch)

    def on_log_step(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> None:
        """Log."""
        if self._start is None:
            return
        seconds = time.perf_counter() - self._start
        num_steps = trainer.global_step - self._step
        num_samples = self._num_samples * trainer.world_size
        speed = {
            "train/seconds_per_step": seconds / num_steps,
            "train/samples_per_second": num_samples / seconds,
        }
        log_numbers(trainer, speed)
        self._start = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._start = None


class MemoryUse(StepCallback):
    """Logs peaks at the logging interval, in GB, the largest of all processes.

    ``train/peak_ram_gb`` is the resident memory of a process (its data workers not counted);
    ``train/peak_gpu_gb``, on CUDA, what tensors took. Both are since the process began; the device
    is not waited for.
    """

    def on_log_step(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> None:
        """Log."""
        peaks = {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RAM_UNIT_BYTES}
        if pl_module.device.type == "cuda":
            peaks["gpu"] = torch.cuda.max_memory_allocated(pl_module.device)
        own = torch.tensor(list(peaks.values()), device=pl_module.device)
        largest = trainer.strategy.reduce(own, reduce_op="max").tolist()
        found = zip(peaks, largest, strict=True)
        log_numbers(trainer, {f"train/peak_{name}_gb": size / _GB for name, size in found})


class ProgressFile(StepCallback):
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

    def on_log_step(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> None:
        """Write."""
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
