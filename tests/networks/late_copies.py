"""A copy stream that copies as late as it may, where the plain one on a CPU copies at once.

Between them lie all orders in which a device could do the copies: what comes out right with both
waits where it has to, and asks for no copy into memory that is still read.
"""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from musicinfuser.memory.host_memory import CopyStream


class LateCopyStream(CopyStream):
    """Copies when it is waited for, and then everything that was asked before, in order."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._pending: list[tuple] = []

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> int:
        self._pending.append((place(target), place(source)))
        return len(self._pending)

    def wait(self, copied: int) -> None:
        for pair in self._pending[:copied]:
            if pair is not None:
                target, source = (tensor_at(*found) for found in pair)
                with torch.no_grad():
                    target.copy_(source)
        self._pending[:copied] = [None] * copied


def place(tensor: torch.Tensor) -> tuple:
    """Where a tensor lies, without keeping its memory alive."""
    layout = tensor.storage_offset(), tensor.shape, tensor.stride()
    return StorageWeakRef(tensor.untyped_storage()), tensor.dtype, layout


def tensor_at(storage: StorageWeakRef, dtype: torch.dtype, layout: tuple) -> torch.Tensor:
    assert not storage.expired(), "memory was given up before its copy was waited for"
    memory = torch.UntypedStorage._new_with_weak_ptr(storage.cdata)
    return torch.empty(0, dtype=dtype).set_(memory, *layout)


def copy_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every copy stream made from here on is late."""
    made: dict[str, LateCopyStream] = {}

    def late(device: torch.device, purpose: str) -> LateCopyStream:
        return made.setdefault(purpose, LateCopyStream(device))

    for module in ("streaming", "offloaded_checkpointing"):
        monkeypatch.setattr(f"musicinfuser.memory.{module}.copy_stream", late)
