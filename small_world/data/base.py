"""What the data of all parts of the small Mochi have in common."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
from torch.utils.data import DataLoader, Dataset

from datamodules.mixing import StepIndexedBatches
from musicinfuser.errors import UserError


class PartDataModule(L.LightningDataModule):
    """Serves `fit` from two data sets; a sample follows from its index alone.

    Args:
        batch_size: Samples per process and batch.
        collate: Samples to a batch.
        num_workers: Processes that make training samples.
    """

    training: Dataset
    validation: Dataset
    validation_batch_size: int

    def __init__(
        self, *, batch_size: int, collate: Callable[[list], Any], num_workers: int = 0
    ) -> None:
        super().__init__()
        self.num_workers = num_workers
        self.batch_size = self.validation_batch_size = batch_size
        self.collate = collate

    def setup(self, stage: str) -> None:
        """Refuse every stage but ``fit``."""
        if stage != "fit":
            raise UserError(f"{type(self).__name__} serves fit only, not {stage}.")

    def train_dataloader(self) -> DataLoader:
        """Batches from the trainer's current step to its last."""
        assert self.trainer is not None
        batches = StepIndexedBatches(range(2**62), batch_size=self.batch_size, trainer=self.trainer)
        return DataLoader(
            self.training,
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader:
        """The same samples every time."""
        return DataLoader(
            self.validation, batch_size=self.validation_batch_size, collate_fn=self.collate
        )
