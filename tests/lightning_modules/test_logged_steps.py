"""Values go to the loggers at the interval, and the steps between cost nothing."""

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.logged_steps import is_logged_step


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
