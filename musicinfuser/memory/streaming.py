"""Frozen weights of the blocks in host memory, each copied to the device for its block's turn.

Why it is exact and safe. The copies are the weights, bit for bit. A block's parameters point at
their copy only within `StreamedBlocks.on_device`, and everything that reads them is queued in
there: the forward pass of a block, or its recomputation together with its backward pass
(`musicinfuser.memory.offloaded_checkpointing`), whose graph is gone when the block ends. The copy
of a later block into the same memory is queued after that, and so starts after it
(`musicinfuser.memory.host_memory`). Nothing is copied back: frozen weights do not change.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor, nn

from musicinfuser.memory.host_memory import copy_stream, own_pages, page_lock
from musicinfuser.setting_checks import check_number

# Weights start at multiples of this many bytes, as in memory that torch hands out on a device.
ALIGNMENT = 512


class StreamedBlocks:
    """Holds blocks' frozen weights in host memory, and ``ahead + 1`` blocks' on the device.

    The parameters keep their names and are host tensors between turns, so that state dicts,
    counts and fingerprints find them. Trained parameters are left alone and live where the module
    is moved. On a CPU the same copies are made, in line.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], *, ahead: int = 1, leave: Sequence[str] = ()
    ) -> None:
        """Move the blocks' frozen weights into one piece of host memory per block.

        Args:
            blocks: In their order, frozen and complete: adapters added, weights loaded. Their
                parameters must not be replaced afterwards (filling them in place is fine).
            ahead: Blocks copied before their turn. 1 hides the copy behind the block before; 0
                needs the least memory, and the device waits for every copy.
            leave: Beginnings of names within a block that are not streamed.

        Raises:
            UserError: ``ahead`` is negative.
        """
        check_number("the number of blocks copied ahead", ahead, at_least=0)
        self.ahead = ahead
        self._blocks = [
            _HostBlock(
                [
                    p
                    for name, p in block.named_parameters()
                    if not (p.requires_grad or name.startswith(tuple(leave)))
                ]
            )
            for block in blocks
        ]
        self._ring: _Ring | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that lives in host memory; for `kept_on_cpu` when a model moves."""
        return [p for block in self._blocks for p in block.parameters]

    @contextmanager
    def on_device(
        self, index: int, device: torch.device, *, then: Sequence[int] = ()
    ) -> Iterator[None]:
        """Within, the frozen parameters of a block are on the device.

        Only one block at a time may be within, and nothing may keep its parameters' values.

        Args:
            index: Which block.
            device: Where it runs.
            then: The blocks whose turn comes after, as far as known; the first ``ahead`` of them
                are copied meanwhile.

        Raises:
            UserError: The host memory could not be page-locked.
        """
        if self._ring is None or self._ring.stream.device != device:
            self._ring = _Ring(self._blocks, device, self.ahead + 1)
        block, ring = self._blocks[index], self._ring
        try:
            memory = ring.take([index, *then][: self.ahead + 1])
            block.point_at(memory)
            yield
            # Everything that reads the memory is queued by now: it may be written to again.
            ring.free.append(memory)
        except BaseException:
            self.release()  # nothing that a pass given up has left behind is used again
            raise
        finally:
            block.point_at(block.memory)

    def release(self) -> None:
        """Give up the memory on the device until the next block's turn."""
        self._ring = None


class _HostBlock:
    """The frozen parameters of a block as views of one piece of host memory."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        sizes = [-(-p.nbytes // ALIGNMENT) * ALIGNMENT for p in parameters]
        *self._starts, end = accumulate(sizes, initial=0)
        is_meta = any(p.is_meta for p in parameters)
        self.memory = (
            torch.empty(end, dtype=torch.uint8, device="meta") if is_meta else own_pages(end)
        )
        values = [parameter.data for parameter in parameters]
        self.point_at(self.memory)
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data.copy_(value)

    def point_at(self, memory: Tensor) -> None:
        """Let the parameters be views of memory that is laid out as this block's."""
        for p, start in zip(self.parameters, self._starts, strict=True):
            p.data = memory[start : start + p.nbytes].view(p.dtype).view(p.shape)


class _Ring:
    """Pieces of device memory that blocks' weights take turns in."""

    def __init__(self, blocks: list[_HostBlock], device: torch.device, size: int) -> None:
        self.stream = copy_stream(device, "weights")
        self._blocks = blocks
        for block in blocks if device.type == "cuda" else ():
            page_lock(block.memory)
        largest = max(block.memory.nbytes for block in blocks)
        self.free = [self.stream.empty((largest,), torch.uint8) for _ in range(size)]
        # Copied or on their way, in the order of their turns.
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def take(self, plan: list[int]) -> Tensor:
        """The weights of the first block of a plan; copies of the others are queued."""
        if [index for index, *_ in self._waiting] != plan[: len(self._waiting)]:
            # A pass was given up. Copies under way end before new ones into the same memory start.
            self.free += [memory for _, memory, _ in self._waiting]
            self._waiting.clear()
        for index in plan[len(self._waiting) :]:
            memory, source = self.free.pop(), self._blocks[index].memory
            copied = self.stream.copy(memory[: source.nbytes], source)
            self._waiting.append((index, memory, copied))
        _, memory, copied = self._waiting.popleft()
        self.stream.wait(copied)
        return memory
