"""A callback for tests: writes down what a run saw and did, and kills it where asked."""

import json
import os
import signal
from pathlib import Path

import lightning.pytorch as L


class TrainingRecord(L.Callback):
    """One line per batch: samples, text lengths, beta, learning rate, loss."""

    def __init__(self, path: str, kill_at_step: int | None = None) -> None:
        self.path = Path(path)
        self.kill_at_step = kill_at_step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        line = {
            "step": trainer.global_step,
            "samples": batch.sample_index,
            "clips": batch.clip_ids,
            "text_lengths": batch.text_lengths,
            "beta": pl_module.noise_beta,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "loss": outputs["loss"].item().hex(),
        }
        with self.path.open("a") as file:
            file.write(f"{json.dumps(line)}\n")
