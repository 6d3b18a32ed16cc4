"""Memory that is made and copied into, seen from torch's operations."""

from collections.abc import Callable

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class WatchedMemory(TorchDispatchMode):
    """Of tensors that a test tells apart: how many are copied into, how many bytes are alive."""

    def __init__(self, is_watched: Callable[[torch.Tensor], bool]) -> None:
        super().__init__()
        self.copies, self.peak = 0, 0
        self._is_watched = is_watched
        self._made: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "copy_" and self._is_watched(args[0]):
            self.copies += 1
        if name == "empty" and self._is_watched(out):
            self._made.append((StorageWeakRef(out.untyped_storage()), out.nbytes))
            self.peak = max(self.peak, self.alive())
        return out

    def alive(self) -> int:
        """Bytes made within this mode that have not been freed."""
        return sum(size for storage, size in self._made if not storage.expired())
