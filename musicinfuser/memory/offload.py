"""Inputs of blocks in host memory from their forward pass to their backward pass."""

import torch
from torch import Tensor

from musicinfuser.memory.copy_stream import side_stream
from musicinfuser.memory.host_memory import host_empty


class OffloadedInputs:
    """What one forward pass leaves for its backward pass: one tensor per block.

    Each is copied to the host while its block runs, and back while the block before it in backward
    runs. They serve one backward pass: host memory is freed block by block.
    """

    def __init__(self, device: torch.device) -> None:
        self._to_host = side_stream(device, "inputs to host")
        self._to_device = side_stream(device, "inputs to device")
        self._host: dict[int, Tensor] = {}
        self._leaving: tuple[Tensor, torch.cuda.Event | None] | None = None
        # Two pieces of device memory in turn: one for the block at work, one for the next.
        self._memory: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
        self._coming: dict[int, tuple[Tensor, torch.cuda.Event | None]] = {}

    def put(self, index: int, value: Tensor) -> None:
        """Keep the input of a block; nothing may write to it while the block runs."""
        self.settle()
        value = value.detach()  # its graph would keep this pass alive, which its graph keeps alive
        host = host_empty(value)
        # Held until the next block, so that its memory has no new owner while it is read.
        self._leaving = value, self._to_host.copy(host, value)
        self._host[index] = host

    def take(self, index: int, *, then: int | None) -> Tensor:
        """The input of a block, once.

        It lies in memory that the input after the next will overwrite, so a block is done with it,
        its backward pass included, before the next block's is taken.

        Args:
            index: Which block.
            then: The block whose turn comes next, ``index - 1`` if any; its input is copied
                meanwhile.

        Raises:
            RuntimeError: It was taken before, as with ``retain_graph``.
        """
        self.settle()
        if index not in self._host:
            raise RuntimeError("inputs of blocks kept on the host serve one backward pass only.")
        for wanted in (index, then):
            if wanted is not None and wanted in self._host and wanted not in self._coming:
                self._coming[wanted] = self._bring(wanted)
        value, copied = self._coming.pop(index)
        self._to_device.wait(copied)
        del self._host[index]
        if not self._host:
            self._memory = {}
        return value

    def _bring(self, index: int) -> tuple[Tensor, torch.cuda.Event | None]:
        host = self._host[index]
        turn = index % 2, host.shape, host.dtype
        if turn not in self._memory:
            self._memory[turn] = self._to_device.empty(host.shape, host.dtype)
        return self._memory[turn], self._to_device.copy(self._memory[turn], host)

    def settle(self) -> None:
        """Let go of the last input that was put: what is computed next waits for its copy."""
        if self._leaving is not None:
            self._to_host.wait(self._leaving[1])
            self._leaving = None
