"""Blocks one after the other, recomputed in backward, with weights and inputs in host memory.

This is full checkpointing with a beginning and an end: recomputation and backward pass of a block
happen in one function, so that what the block needs of host memory is on the device exactly then.
torch's own checkpoints tell where a block's recomputation starts, not where its backward ends.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from musicinfuser.memory.host_memory import copy_stream, host_empty
from musicinfuser.memory.streaming import StreamedBlocks

Block = Callable[..., tuple[Tensor, ...]]


class OffloadedPass:
    """One forward pass over all blocks, and the backward pass that belongs to it."""

    def __init__(
        self, num_blocks: int, *, weights: StreamedBlocks | None, offload_inputs: bool
    ) -> None:
        """Start a pass.

        Args:
            num_blocks: Blocks that will be run, in order.
            weights: Their frozen weights, where those are in host memory.
            offload_inputs: Keep each block's first input in host memory until backward. The last
                block's stays on the device, because backward starts with it.
        """
        self.last, self.first = num_blocks - 1, num_blocks
        self.weights, self.offload_inputs = weights, offload_inputs
        self.inputs: OffloadedInputs | None = None

    def run(
        self,
        index: int,
        block: Block,
        inputs: Sequence[Tensor | None],
        trained: Sequence[nn.Parameter],
    ) -> tuple[Tensor, ...]:
        """Run a block; with gradients, keep only its inputs and recompute it in backward.

        Args:
            index: The block's place.
            block: Called with ``inputs``, returns a tuple of tensors. Draws no random numbers and
                writes to none of its inputs. What needs no gradient (tables, masks, modulations)
                comes by closure.
            inputs: Every tensor the block uses that may need a gradient; the first is the one that
                is offloaded. Not in the closure: that would keep it.
            trained: Every parameter the block trains, tied ones once. Hooks of their gradients
                (`Tensor.register_hook`) would run twice; those after accumulation run once.
        """
        assert inputs[0] is not None
        if torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (*inputs, *trained)
        ):
            self.first = min(self.first, index)
            if self.offload_inputs and self.inputs is None:
                self.inputs = OffloadedInputs(inputs[0].device)
            return _Recomputed.apply(self, index, block, len(inputs), *inputs, *trained)
        with torch.no_grad(), self.on_device(index, inputs[0], range(index + 1, self.last + 1)):
            return block(*inputs)

    def on_device(
        self, index: int, value: Tensor, then: Sequence[int]
    ) -> AbstractContextManager[None]:
        """Within, the block's weights are where a tensor is; ``then`` are the blocks after it."""
        if self.weights is None:
            return nullcontext()
        return self.weights.on_device(index, value.device, then=then)


class _Recomputed(torch.autograd.Function):
    """A block of which nothing but the inputs is kept.

    Trained parameters are inputs, so that their gradients leave by the outer graph once per
    backward pass: hooks, DDP and accumulation see what they see without checkpointing.
    """

    @staticmethod
    def forward(
        ctx: Any, owner: OffloadedPass, index: int, block: Block, num_inputs: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs, ctx.trained = tensors[:num_inputs], tensors[num_inputs:]
        ctx.owner, ctx.index, ctx.block = owner, index, block
        ctx.wanted = ctx.needs_input_grad[4 : 4 + num_inputs]
        ctx.autocast = _autocast_as_now(inputs[0].device.type)
        ctx.set_materialize_grads(False)
        first: Tensor | None = inputs[0]
        if owner.inputs is not None:
            owner.inputs.settle()
            if index != owner.last:
                owner.inputs.put(index, inputs[0])
                first = None
        ctx.save_for_backward(first, *inputs[1:])
        order = [*range(index + 1, owner.last + 1), *range(owner.last, -1, -1)]
        # With gradients on, although nothing is kept: the kernels, and under torch.compile the
        # graph, are then those of the recomputation.
        with (
            owner.on_device(index, inputs[0], order),
            torch.enable_grad(),
            saved_tensors_hooks(_drop, _refuse),
        ):
            outputs = block(*_detached(inputs, ctx.wanted))
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        owner, order = ctx.owner, range(ctx.index - 1, ctx.owner.first - 1, -1)
        first, *others = ctx.saved_tensors
        if first is None:
            first = owner.inputs.take(ctx.index, then=next(iter(order), None))
        with owner.on_device(ctx.index, first, order):
            # Not around the backward pass too, which runs in whatever region asked for it.
            with torch.enable_grad(), ctx.autocast():
                inputs = _detached([first, *others], ctx.wanted)
                outputs = ctx.block(*inputs)
            pairs = [
                (output, gradient)
                for output, gradient in zip(outputs, gradients, strict=True)
                if gradient is not None and output.requires_grad
            ]
            sources = [t for t in (*inputs, *ctx.trained) if t is not None and t.requires_grad]
            found = torch.autograd.grad(
                [output for output, _ in pairs],
                sources,
                [gradient for _, gradient in pairs],
                allow_unused=True,
            )
        by_source = dict(zip(map(id, sources), found, strict=True))
        return None, None, None, None, *(by_source.get(id(t)) for t in (*inputs, *ctx.trained))


def _detached(inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """The inputs as leaves of a graph of their own."""
    return [
        None if value is None else value.detach().requires_grad_(needs_grad)
        for value, needs_grad in zip(inputs, wanted, strict=True)
    ]


def _autocast_as_now(device_type: str) -> Callable[[], AbstractContextManager]:
    """A maker of regions in which autocast is what it is here."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext
    return partial(
        torch.autocast,
        device_type,
        dtype=torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
        cache_enabled=torch.is_autocast_cache_enabled(),
    )


def _drop(tensor: Tensor) -> None:
    """Keep nothing of a graph that is never walked."""


def _refuse(_: None) -> Tensor:
    raise AssertionError("the graph of a first forward pass is never walked")


class OffloadedInputs:
    """What one forward pass leaves for its backward pass: one tensor per block.

    Each is copied to the host while its block runs, and back while the block before it in backward
    runs. They serve one backward pass: host memory is freed block by block.
    """

    def __init__(self, device: torch.device) -> None:
        self._to_host = copy_stream(device, "inputs to host")
        self._to_device = copy_stream(device, "inputs to device")
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

    def settle(self) -> None:
        """Let go of the last input that was put: what is computed next waits for its copy."""
        if self._leaving is not None:
            self._to_host.wait(self._leaving[1])
            self._leaving = None

    def take(self, index: int, *, then: int | None) -> Tensor:
        """The input of a block, once, while that of the block whose turn comes ``then`` is copied.

        It lies in memory that the input after the next will overwrite, so a block is done with it,
        its backward pass included, before the next block's is taken.

        Raises:
            RuntimeError: It was taken before, as with ``retain_graph``.
        """
        self.settle()
        if index not in self._host:
            raise RuntimeError("inputs of blocks kept on the host serve one backward pass only.")
        for wanted in (index, then):
            if wanted is not None and wanted in self._host and wanted not in self._coming:
                host = self._host[wanted]
                turn = wanted % 2, host.shape, host.dtype
                if turn not in self._memory:
                    self._memory[turn] = self._to_device.empty(host.shape, host.dtype)
                memory = self._memory[turn]
                self._coming[wanted] = memory, self._to_device.copy(memory, host)
        value, copied = self._coming.pop(index)
        self._to_device.wait(copied)
        del self._host[index]
        if not self._host:
            self._memory = {}
        return value
