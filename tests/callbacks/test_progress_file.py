"""ProgressFile: what others read of a training that runs."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

from callbacks import ProgressFile

# What one batch's loss is: its own number, plus a parameter that starts at 0 and never moves.
NUMBERS = [3.0, 5.0, 7.0, 9.0, 11.0, 13.0]


class Counting(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        return {"loss": batch.sum() + self.weight}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Reader(L.Callback):
    """Reads the file at the start of every batch, as someone outside might."""

    def __init__(self, folder: Path) -> None:
        self.file, self.seen = folder / "progress.json", []

    def on_train_batch_start(self, *_: object) -> None:
        self.seen.append(json.loads(self.file.read_text()))


def train(folder: Path, *, max_steps: int, checkpoint: str | None = None, **options: Any) -> Reader:
    reader = Reader(folder)
    trainer = L.Trainer(
        default_root_dir=folder, max_steps=max_steps, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[ProgressFile(), reader], **options,
    )  # fmt: skip
    loader = DataLoader(torch.tensor(NUMBERS), batch_size=1)
    trainer.fit(Counting(), loader, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "last.ckpt")
    return reader


def progress(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "progress.json").read_text())


@pytest.mark.filterwarnings("ignore")
def test_steps_and_losses_at_the_interval(tmp_path: Path) -> None:
    seen = train(tmp_path, max_steps=6, log_every_n_steps=2).seen
    first = {"step": 0, "max_steps": 6, "loss": None, "seconds_per_step": None}
    assert seen[0] == seen[1] == first
    assert [(now["step"], now["loss"]) for now in seen[2:]] == [(2, 5.0)] * 2 + [(4, 9.0)] * 2
    assert all(now["seconds_per_step"] > 0 for now in seen[2:])
    assert progress(tmp_path)["step"] == 6
    assert progress(tmp_path)["loss"] == 13.0


@pytest.mark.filterwarnings("ignore")
def test_a_step_of_several_batches_shows_the_loss_of_one(tmp_path: Path) -> None:
    train(tmp_path, max_steps=3, log_every_n_steps=1, accumulate_grad_batches=2)
    assert progress(tmp_path)["step"] == progress(tmp_path)["max_steps"] == 3
    # Not half of it, which is what Lightning hands out.
    assert progress(tmp_path)["loss"] == 13.0


@pytest.mark.filterwarnings("ignore")
def test_the_short_last_step_of_an_epoch_is_shown(tmp_path: Path) -> None:
    """Six batches in steps of four: the second step has two."""
    train(tmp_path, max_steps=-1, max_epochs=1, log_every_n_steps=1, accumulate_grad_batches=4)
    assert progress(tmp_path)["step"] == 2
    assert progress(tmp_path)["loss"] == 13.0


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_counts_on_and_its_pace_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, max_steps=4, log_every_n_steps=1)
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr("callbacks.monitors.time.perf_counter", lambda: next(ticks))
    last = str(tmp_path / "last.ckpt")
    seen = train(tmp_path, max_steps=6, log_every_n_steps=1, checkpoint=last).seen
    # Ten seconds between two looks at the clock; steps before the restart are no work of it.
    assert seen[0] == {"step": 4, "max_steps": 6, "loss": None, "seconds_per_step": None}
    assert seen[1]["seconds_per_step"] == 10.0
    assert progress(tmp_path)["step"] == 6


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_killed_before_it_said_that_it_is_done_says_so(tmp_path: Path) -> None:
    train(tmp_path, max_steps=4, log_every_n_steps=3)
    (tmp_path / "progress.json").write_text('{"step": 3, "max_steps": 4}')
    train(tmp_path, max_steps=4, checkpoint=str(tmp_path / "last.ckpt"))
    ended = {"step": 4, "max_steps": 4, "loss": None, "seconds_per_step": None, "ended": True}
    assert progress(tmp_path) == ended
