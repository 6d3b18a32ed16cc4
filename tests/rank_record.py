"""Callbacks for tests of several processes: each writes down what it alone saw."""

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Literal

import lightning.pytorch as L

from tests.training_record import TrainingRecord


class RankRecord(TrainingRecord):
    """TrainingRecord in a file per rank, and files on the weights it holds and has trained."""

    def setup(self, trainer, pl_module, stage) -> None:
        self.path = self.path.with_name(f"{self.path.name}.{trainer.global_rank}")

    def on_train_start(self, trainer, pl_module) -> None:
        block = pl_module.adapted.backbone.transformer_blocks[0]
        held = {
            name: getattr(p, "to_local", lambda p=p: p)().numel()
            for name, p in block.named_parameters()
        }
        Path(f"{self.path}.weights").write_text(json.dumps(held))

    def on_train_end(self, trainer, pl_module) -> None:
        trained = hashlib.sha256()
        for name, weight in pl_module.named_parameters():
            if weight.requires_grad:
                trained.update(name.encode() + weight.detach().numpy().tobytes())
        Path(f"{self.path}.trained").write_text(trained.hexdigest())


class OneRankFails(L.Callback):
    """At the first batch of a step one process is killed, hangs, or finds its clips gone."""

    def __init__(
        self, folder: str, rank: int, how: Literal["kill", "hang", "lose clips"], step: int = 1
    ) -> None:
        self.folder, self.rank, self.how, self.step = Path(folder), rank, how, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        (self.folder / f"pid.{trainer.global_rank}").write_text(str(os.getpid()))
        if (trainer.global_rank, trainer.global_step) != (self.rank, self.step):
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "hang":
            time.sleep(3600)
        else:
            shutil.rmtree(Path(trainer.datamodule.cache_dir, "clips", "youtube"))
