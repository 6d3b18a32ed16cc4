"""Inputs of blocks leave the device between forward and backward, and come back in time."""

import gc

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from musicinfuser.memory.offloaded_checkpointing import OffloadedInputs
from tests.adapted_blocks import ListeningBlocks, make_clip
from tests.networks.late_copies import copy_late
from tests.networks.watched_memory import WatchedMemory

CPU = torch.device("cpu")


def inputs_alive_after_forward(model: ListeningBlocks) -> tuple[list[bool], torch.Tensor]:
    """Which blocks' inputs are alive between forward and backward, and the loss."""
    inputs = []
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda _, args: inputs.append(StorageWeakRef(args[0].untyped_storage()))
        )
    loss = model(make_clip()).square().mean()
    return [not storage.expired() for storage in inputs], loss


def test_between_the_passes_only_the_last_input_is_on_the_device() -> None:
    kept, _ = inputs_alive_after_forward(ListeningBlocks(streamed=True))
    assert kept == [True] * 5
    offloaded, loss = inputs_alive_after_forward(ListeningBlocks(offload_inputs=True))
    assert offloaded == [True, False, False, False, True]  # the first is the clip's own
    loss.backward()


def test_without_gradients_nothing_is_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an input was offloaded")

    monkeypatch.setattr(OffloadedInputs, "put", refuse)
    with torch.no_grad():
        ListeningBlocks(offload_inputs=True)(make_clip())


@pytest.mark.parametrize("is_late", [False, True])
def test_memory_is_freed_as_backward_goes(monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    if is_late:
        copy_late(monkeypatch)
    inputs, shape = OffloadedInputs(CPU), (3, 5)
    with WatchedMemory(lambda tensor: tensor.shape == shape) as watched:

        def alive() -> int:
            return watched.alive() // (4 * 3 * 5)

        for index in range(4):
            source = torch.empty(shape).fill_(index)
            inputs.put(index, source)
            del source
        assert alive() == 4 + 1  # and the last on the device, until its copy is done
        inputs.settle()
        assert alive() == 4
        for index in (3, 2, 1, 0):
            value = inputs.take(index, then=index - 1 if index else None)
            assert (value == index).all()
            # On the host those of earlier blocks; on the device this one's and the next.
            assert alive() == index + (2 if index else 1)
            del value
        assert alive() == 0
    assert watched.copies == 4 + 4
    with pytest.raises(RuntimeError, match="one backward pass only"):
        inputs.take(0, then=None)


def test_graphs_that_are_never_walked_are_freed_at_once() -> None:
    """No cycle waits for the garbage collector with the memory of a pass."""
    model = ListeningBlocks(streamed=True, offload_inputs=True)
    gc.collect()
    gc.disable()
    try:
        _, loss = inputs_alive_after_forward(model)
        node = next_node(loss)
        last_input = StorageWeakRef(node.saved_tensors[0].untyped_storage())
        assert not last_input.expired()
        del loss, node
        assert last_input.expired()
    finally:
        gc.enable()


def next_node(loss: torch.Tensor) -> torch.autograd.graph.Node:
    """The last block's node in the graph of a loss."""
    node = loss.grad_fn
    while "Recomputed" not in node.name():
        node = node.next_functions[0][0]
    return node
