"""Values go to the loggers at the interval, and the steps between cost nothing."""

import csv
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from callbacks import ProgressFile
from lightning_modules.logged_steps import StepMeans, is_logged, is_logged_step, log_numbers


class Noting(L.LightningModule):
    """Notes at which step of which batch it would log."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.noted: list[tuple[int, int]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if is_logged_step(self):
            self.noted.append((self.global_step, batch_idx))
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("interval", "accumulated", "noted"),
    [
        (3, 1, [(2, 2), (5, 5)]),
        (2, 2, [(1, 2), (1, 3), (3, 6), (3, 7)]),
        (0, 1, []),
    ],
)
def test_logs_the_step_that_lightning_writes(tmp_path, interval, accumulated, noted):
    module = Noting()
    trainer = L.Trainer(
        max_epochs=1, log_every_n_steps=interval, accumulate_grad_batches=accumulated,
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=1))
    assert module.noted == noted


def test_a_module_alone_logs_nothing():
    assert not is_logged_step(Noting())
    StepMeans().log(Noting(), {"train/loss": torch.ones(())})


class Averaging(L.LightningModule):
    """Logs each batch's number and its square."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.means = StepMeans()
        self.logged: dict[int, tuple[float, float]] = {}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        number = batch.mean()
        self.means.log(self, {"train/loss": number, "train/square": number.square()})
        return self.layer(batch[:, None]).mean()

    def on_train_batch_end(self, *_: object) -> None:
        found = self.trainer.callback_metrics
        if "train/loss" in found:
            pair = found["train/loss"].item(), found["train/square"].item()
            self.logged.setdefault(self.trainer.global_step, pair)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize(
    ("accumulated", "interval", "expected"),
    [
        (1, 1, {1: (1, 1), 2: (2, 4), 3: (4, 16), 4: (8, 64), 5: (16, 256)}),
        # The last step of an epoch may have fewer batches.
        (2, 1, {1: (1.5, 2.5), 2: (6, 40), 3: (16, 256)}),
        (2, 2, {2: (6, 40)}),
        (5, 1, {1: (31 / 5, 341 / 5)}),
    ],
)
def test_a_logged_value_is_the_mean_over_its_optimizer_step(
    tmp_path, accumulated, interval, expected
):
    module = Averaging()
    trainer = L.Trainer(
        max_epochs=1, log_every_n_steps=interval, accumulate_grad_batches=accumulated,
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[ProgressFile()],
    )  # fmt: skip
    reduced = []
    reduce = trainer.strategy.reduce

    def noting(value, **how):
        if value.numel() == 2:  # what Lightning asks of processes are single numbers
            reduced.append(how)
        return reduce(value, **how)

    trainer.strategy.reduce = noting
    numbers = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    trainer.fit(module, torch.utils.data.DataLoader(numbers, batch_size=1))
    first = {step: pair for step, pair in module.logged.items() if step in expected}
    assert first == {step: pytest.approx(pair) for step, pair in expected.items()}
    # Processes meet once for each logged step, not more often.
    assert reduced == [{"reduce_op": "mean"}] * len(expected)


class Counting(L.Callback):
    """Logs the step and its half."""

    def on_train_batch_end(self, trainer, *_: object) -> None:
        if is_logged(trainer):
            step = trainer.global_step
            log_numbers(trainer, {"own/step": step, "own/half": step / 2})


def test_numbers_are_logged_beside_the_values_of_their_step(tmp_path):
    logger = CSVLogger(tmp_path)
    trainer = L.Trainer(
        max_epochs=1, log_every_n_steps=2, accumulate_grad_batches=2, accelerator="cpu",
        logger=logger, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Counting()],
    )  # fmt: skip
    trainer.fit(Averaging(), torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=1))
    rows = list(csv.DictReader(Path(logger.log_dir, "metrics.csv").open()))
    steps = {
        name: [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        for name in ("train/loss", "own/step", "own/half")
    }
    assert steps["own/step"] == [(1, 2.0), (3, 4.0)]
    assert steps["own/half"] == [(1, 1.0), (3, 2.0)]
    assert [step for step, _ in steps["train/loss"]] == [1, 3]
    found = trainer.callback_metrics
    assert found["own/step"] == 4 and found["own/half"].dtype == found["train/loss"].dtype


def test_values_of_a_step_that_was_cut_off_are_forgotten(tmp_path):
    module = Averaging()
    module.means._step, module.means._noted = -3, [torch.full((2,), 99.0)]
    trainer = L.Trainer(
        max_steps=1, log_every_n_steps=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.tensor([3.0]), batch_size=1))
    assert module.logged == {1: (3.0, 9.0)}
