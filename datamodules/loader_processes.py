"""What data modules and the processes that load their data share."""

import signal
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function

from musicinfuser.setting_checks import check_number


class HostDataModule(L.LightningDataModule):
    """Data whose batches stay on the host: each model takes to its device what it needs."""

    def __init__(self, num_workers: int = 0) -> None:
        """Refuse a number of loader processes below 0; 0 loads in the training process."""
        super().__init__()
        check_number("data.num_workers", num_workers, at_least=0, hint=" (0: in the main process)")
        self.num_workers = num_workers

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This rank's part."""
        assert self.trainer is not None
        return items[self.trainer.global_rank :: self.trainer.world_size]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leave a batch where it is."""
        return batch


def outlive_first_signal(worker_id: int) -> None:
    """Let a first SIGTERM or ctrl-C pass: it may come to all processes of a run, which then saves.

    A second one ends the loader, as does the end of the run.
    """
    pl_worker_init_function(worker_id)

    def pass_once(signum: int, *_: object) -> None:
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, pass_once)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, pass_once)
