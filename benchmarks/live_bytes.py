"""How much memory is alive while code runs on the meta device, where nothing is computed.

Every storage is noted when an operation returns it and forgotten when it is freed, so the peak is
what a perfect allocator would have needed. What a kernel needs for itself is not seen.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from musicinfuser.memory.host_memory import host_empty

# Flash attention takes heads of at most 256 channels; wider ones go to another fused kernel.
WIDEST_FLASH_HEAD = 256
_attention = torch.nn.functional.scaled_dot_product_attention


class LiveBytes(TorchDispatchMode):
    """Counts bytes of storages while it is entered; what was there before does not count."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Set up.

        Args:
            known: Tensors that are not counted, such as weights.
        """
        super().__init__()
        self.now = 0
        """Bytes alive."""
        self.peak = 0
        """Most bytes alive at once."""
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self._sizes: dict[int, int] = {}
        self._counts = True

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Within, what is made does not count: it stands for memory elsewhere."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation and note what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes() if self._counts else 0
        self.now += self._sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """What `scaled_dot_product_attention` runs on a GPU; on the meta device it keeps all logits."""
    if options.get("attn_mask") is not None:
        return _attention(query, key, value, **options)
    scale = options.get("scale")
    if query.shape[-1] <= WIDEST_FLASH_HEAD:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, scale=scale)[0]
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, None, compute_log_sumexp=True, scale=scale)[0]


@contextmanager
def host_memory_left_out(live: LiveBytes) -> Iterator[None]:
    """Blocks' inputs that are offloaded do not count for a while."""

    def elsewhere(like: Tensor) -> Tensor:
        with live.left_out():
            return host_empty(like)

    with patch("musicinfuser.memory.offloaded_checkpointing.host_empty", elsewhere):
        yield


@contextmanager
def attention_as_on_a_gpu() -> Iterator[None]:
    """Let attention be one fused operation for a while."""
    with patch("torch.nn.functional.scaled_dot_product_attention", fused_attention):
        yield
