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
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from musicinfuser.errors import UserError
from musicinfuser.memory.offload import OffloadedInputs
from musicinfuser.memory.streaming import StreamedBlocks

Block = Callable[..., tuple[Tensor, ...]]


def check_policy(gradient_checkpointing: str) -> None:
    """Refuse to train blocks in host memory with more kept than their inputs.

    What else a graph keeps would keep the weights of every block on the device.

    Args:
        gradient_checkpointing: The model's policy.

    Raises:
        ValueError: It is not ``full``.
    """
    if gradient_checkpointing != "full":
        raise UserError(
            "blocks with weights or inputs in host memory (stream_blocks, offload_inputs) are "
            f"recomputed whole in training; gradient_checkpointing is {gradient_checkpointing}, "
            "set it to full."
        )


class BlockPass:
    """One forward pass over all blocks, and the backward pass that belongs to it."""

    def __init__(
        self,
        num_blocks: int,
        *,
        weights: StreamedBlocks | None,
        offload_inputs: bool,
        gradient_checkpointing: str = "full",
    ) -> None:
        """Start a pass.

        Args:
            num_blocks: Blocks that will be run, in order.
            weights: Their frozen weights, where those are in host memory.
            offload_inputs: Keep each block's first input in host memory until backward. The last
                block's stays on the device, because backward starts with it.
            gradient_checkpointing: The model's policy; without gradients any will do.

        Raises:
            ValueError: With gradients, another policy than ``full``.
        """
        if torch.is_grad_enabled():
            check_policy(gradient_checkpointing)
        self._last = num_blocks - 1
        self._weights = weights
        self._offload_inputs = offload_inputs
        self._first = num_blocks
        self._inputs: OffloadedInputs | None = None

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
        tensors = [t for t in (*inputs, *trained) if t is not None]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            self._first = min(self._first, index)
            return _Recomputed.apply(self, index, block, len(inputs), *inputs, *trained)
        upcoming = range(index + 1, self._last + 1)
        with torch.no_grad(), self.weights_on_device(index, inputs, upcoming):
            return block(*inputs)

    def forward_order(self, index: int) -> list[int]:
        """Whose weights are needed after this block's forward pass, with gradients."""
        there, back = range(index + 1, self._last + 1), range(self._last, -1, -1)
        return [*there, *back]

    def backward_order(self, index: int) -> range:
        """Whose weights and inputs are needed after this block's backward pass."""
        return range(index - 1, self._first - 1, -1)

    def weights_on_device(
        self, index: int, inputs: Sequence[Tensor | None], then: Sequence[int]
    ) -> AbstractContextManager[None]:
        """Within, the block's weights are where its first input is."""
        if self._weights is None:
            return nullcontext()
        assert inputs[0] is not None
        return self._weights.on_device(index, inputs[0].device, then=then)

    def put_input(self, index: int, value: Tensor) -> Tensor | None:
        """Offload a block's first input; returned if it stays where it is."""
        if not self._offload_inputs:
            return value
        if self._inputs is None:
            self._inputs = OffloadedInputs(value.device)
        if index == self._last:
            self._inputs.settle()
            return value
        self._inputs.put(index, value)
        return None

    def take_input(self, index: int) -> Tensor:
        """What `put_input` did not return."""
        assert self._inputs is not None
        return self._inputs.take(index, then=next(iter(self.backward_order(index)), None))


class _Recomputed(torch.autograd.Function):
    """A block of which nothing but the inputs is kept.

    Trained parameters are inputs, so that their gradients leave by the outer graph once per
    backward pass: hooks, DDP and accumulation see what they see without checkpointing.
    """

    @staticmethod
    def forward(
        ctx: Any, owner: BlockPass, index: int, block: Block, num_inputs: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs, ctx.trained = tensors[:num_inputs], tensors[num_inputs:]
        ctx.owner, ctx.index, ctx.block = owner, index, block
        ctx.autocast = _autocast_as_now(inputs[0].device.type)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(owner.put_input(index, inputs[0]), *inputs[1:])
        # With gradients on, although nothing is kept: the kernels, and under torch.compile the
        # graph, are then those of the recomputation.
        with (
            owner.weights_on_device(index, inputs, owner.forward_order(index)),
            torch.enable_grad(),
            saved_tensors_hooks(_drop, _refuse),
        ):
            outputs = block(*_detached(inputs, _needs_grad(ctx, num_inputs)))
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        owner, index = ctx.owner, ctx.index
        first, *others = ctx.saved_tensors
        inputs = [owner.take_input(index) if first is None else first, *others]
        wanted = _needs_grad(ctx, len(inputs))
        with owner.weights_on_device(index, inputs, owner.backward_order(index)):
            # Not around the backward pass too, which runs in whatever region asked for it.
            with torch.enable_grad(), ctx.autocast():
                inputs = _detached(inputs, wanted)
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


def _needs_grad(ctx: FunctionCtx, num_inputs: int) -> tuple[bool, ...]:
    return ctx.needs_input_grad[4 : 4 + num_inputs]  # type: ignore[attr-defined]


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
