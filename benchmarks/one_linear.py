"""As little training as there can be, with what the loop and its callbacks look at."""

import time
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_modules.learning_rate import build_optimizer
from lightning_modules.logged_steps import is_logged_step
from lightning_modules.settings import OptimizerSpec

WIDTH = 8


@dataclass(frozen=True)
class Sample:
    """Where a sample comes from."""

    source: str


@dataclass(frozen=True)
class SmallBatch:
    """Rows of numbers in place of clips."""

    inputs: Tensor
    """``(B, WIDTH)``."""
    sample_index: tuple[int, ...]
    clip_ids: tuple[str, ...]

    def __len__(self) -> int:
        """Samples in the batch."""
        return len(self.inputs)

    def to(self, device: torch.device, **_: object) -> "SmallBatch":
        """Itself: it stays on the CPU."""
        return self


class OneLinear(L.LightningModule):
    """A linear layer and a clock around its steps."""

    def __init__(self, drop: int = 0) -> None:
        """Set up.

        Args:
            drop: Steps before the clock starts.
        """
        super().__init__()
        self.layer, self.drop, self.noise_beta = nn.Linear(WIDTH, WIDTH), drop, 1.0
        self.is_logging = True
        self.began = self.ended = 0.0

    def training_step(self, batch: SmallBatch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch, logged as the real module does."""
        if batch_idx == self.drop:
            self.began = time.process_time()
        losses = self.layer(batch.inputs).square().mean(dim=1)
        loss = losses.mean()
        if self.is_logging and is_logged_step(self):
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return {"loss": loss, "losses": losses.detach(), "sigma": batch.inputs[:, 0].detach()}

    def on_train_end(self) -> None:
        """Stop the clock."""
        self.ended = time.process_time()

    def configure_optimizers(self) -> Any:
        """The recipe's."""
        return build_optimizer(self.parameters(), OptimizerSpec(1e-4, 200, "cosine"), 10_000)


class SameBatches(L.LightningDataModule):
    """The same batch again and again."""

    def __init__(self, num_steps: int = 0) -> None:
        super().__init__()
        self.num_steps, self.ratio = num_steps, {"aist": 1, "youtube": 1}
        self.mixture = [Sample("aist"), Sample("youtube")]

    def train_dataloader(self) -> DataLoader:
        """As many batches as steps."""
        batches: Any = [small_batch()] * self.num_steps
        return DataLoader(batches, batch_size=None)


def small_batch() -> SmallBatch:
    """Two samples."""
    return SmallBatch(torch.linspace(0, 0.9, 2 * WIDTH).view(2, WIDTH), (0, 1), ("a", "b"))
