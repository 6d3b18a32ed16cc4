"""A callback for tests: writes down what a run saw and did, and ends it where asked."""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lightning.pytorch as L


class TrainingRecord(L.Callback):
    """One line per batch: samples, text lengths, beta, learning rate, loss.

    At the first batch of step ``at_step`` the signal is sent, SIGTERM to every process of the run,
    as a cluster does; with ``full disk`` no file grows beyond 10 kB any more.
    """

    def __init__(
        self,
        path: str,
        at_step: int | None = None,
        end: Literal["SIGKILL", "SIGTERM", "full disk"] = "SIGKILL",
    ) -> None:
        self.path = Path(path)
        self.at_step, self.end = at_step, end

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step != self.at_step:
            return
        self.at_step = None
        if self.end == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        elif self.end == "SIGTERM":
            os.killpg(0, signal.SIGTERM)
        else:
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


def record(
    run_cli: Callable, *arguments: str, cache: Path, root: Path, num_steps: int
) -> list[dict]:
    """Fit until a step, from where the folder's last checkpoint is, and read what was noted."""
    root.mkdir(exist_ok=True)
    checkpoint = f"{{class_path: callbacks.AtomicCheckpoint, init_args: {{dirpath: {root}/ckpt, "
    noted = (
        f"{{class_path: tests.training_record.TrainingRecord, init_args: {{path: {root}/record}}}}"
    )
    run_cli(
        "fit",
        *arguments,
        f"--trainer.callbacks=[{checkpoint}every_n_train_steps: 1, save_last: true}}}}, {noted}]",
        f"--trainer.max_steps={num_steps}",
        "--data.init_args.batch_size=2",
        "--model.init_args.schedule.decay=constant",
        cache=cache,
        root=root,
    )
    return [json.loads(line) for line in (root / "record").read_text().splitlines()]
