"""MemoryUse: how much memory training has needed so far."""

import resource
import sys
from typing import Any

import lightning.pytorch as L
import torch

from callbacks.log_interval import is_logged

# What `getrusage` counts in.
_RAM_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
_GB = 1e9


class MemoryUse(L.Callback):
    """Logs peaks at the logging interval, in GB, the largest of all processes.

    ``train/peak_ram_gb`` is the resident memory of a process (its data workers not counted);
    ``train/peak_gpu_gb``, on CUDA, what tensors took. Both are since the process began; the device
    is not asked.
    """

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log at the interval."""
        if not is_logged(trainer, batch_idx):
            return
        peaks = {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RAM_UNIT_BYTES}
        if pl_module.device.type == "cuda":
            peaks["gpu"] = torch.cuda.max_memory_allocated(pl_module.device)
        for name, num_bytes in peaks.items():
            pl_module.log(f"train/peak_{name}_gb", num_bytes / _GB, sync_dist=True, reduce_fx="max")
