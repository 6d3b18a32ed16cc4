"""A training of a second or less, for tests of what happens around the steps."""

from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from datamodules.mixing import StepIndexedBatches


@dataclass
class Batch:
    inputs: torch.Tensor
    clip_ids: list[str]
    has_bad_gradient: bool = False


class Line(L.LightningModule):
    """A linear layer that learns to be zero, beside a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.frozen = nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.linspace(0.1 + i, 1.0, parameter.numel()).view_as(parameter))
        self.validated: list[torch.Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = self.frozen(self.layer(batch.inputs)).square().mean()
        if batch.has_bad_gradient:
            loss = loss + (0 * self.layer.weight.sum()).sqrt()  # is 0, and its slope is nan
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(self.layer.weight.detach().clone())

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.layer.weight.detach().clone()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)


class StepRecord(L.Callback):
    """Weights and optimizer state after every optimizer step, step 0 included."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.states: list[list[dict]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self._note(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
        if trainer.global_step == len(self.weights):
            self._note(trainer, pl_module)

    def _note(self, trainer, pl_module) -> None:
        self.weights.append(pl_module.layer.weight.detach().clone())
        [optimizer] = trainer.optimizers
        self.states.append(
            [{k: v.clone() for k, v in optimizer.state[p].items()} for p in optimizer.state]
        )


def batches(num: int, *, bad_loss: tuple = (), bad_gradient: tuple = ()) -> DataLoader:
    made = []
    for i in range(num):
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
        if i in bad_loss:
            inputs[0, 0] = float("nan")
        made.append(Batch(inputs, [f"clip {i}"], i in bad_gradient))
    return DataLoader(made, batch_size=None)


class Numbered(L.LightningDataModule):
    """Samples by their number in the run, ``batch_size`` at a time; notes what is trained on."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        chosen = StepIndexedBatches(range(10_000), batch_size=self.batch_size, trainer=self.trainer)
        return DataLoader(
            range(10_000), batch_sampler=chosen, collate_fn=lambda indices: Batch(
                torch.stack([
                    torch.randn(3, generator=torch.Generator().manual_seed(i)) for i in indices
                ]),
                list(map(str, indices)),
            ),
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader:
        return batches(1)


def trainer(root: Path, *callbacks: L.Callback, num_steps: int, **options) -> L.Trainer:
    defaults = {
        "default_root_dir": root,
        "max_steps": num_steps,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any("Checkpoint" in type(c).__name__ for c in callbacks),
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(callbacks=list(callbacks), **(defaults | options))
