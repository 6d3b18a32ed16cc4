"""Where frozen weights are, how often they are copied, and how much of them is on the device."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from musicinfuser.memory.host_memory import kept_on_cpu
from musicinfuser.memory.streaming import ALIGNMENT, StreamedBlocks
from tests.adapted_blocks import ListeningBlocks, make_clip
from tests.networks.watched_memory import WatchedMemory

NUM_BLOCKS = 5
CPU = torch.device("cpu")


def watched_weights() -> WatchedMemory:
    """Weights travel as bytes."""
    return WatchedMemory(lambda tensor: tensor.dtype == torch.uint8)


def frozen(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in module.parameters() if not p.requires_grad)


def block_bytes(block: nn.Module) -> int:
    return sum(-(-p.nbytes // ALIGNMENT) * ALIGNMENT for p in frozen(block))


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_copies_and_live_bytes(ahead: int) -> None:
    model, clip = ListeningBlocks(streamed=True, ahead=ahead), make_clip()
    limit = (ahead + 1) * max(map(block_bytes, model.blocks))
    with torch.no_grad(), watched_weights() as sampling:
        model(clip)
    assert sampling.copies == NUM_BLOCKS and 0 < sampling.peak <= limit
    with watched_weights() as training:
        model(clip).square().mean().backward()
    assert training.copies == 2 * NUM_BLOCKS
    assert training.peak == 0, "the memory is kept and used again"


def test_one_block_at_a_time_is_on_the_device() -> None:
    model = ListeningBlocks(streamed=True)
    host = {p: p.data_ptr() for block in model.blocks for p in frozen(block)}
    turns = []

    def look(block: nn.Module, *_: object) -> None:
        moved = {p for p, place in host.items() if p.data_ptr() != place}
        assert moved == set(frozen(block))
        turns.append(next(i for i, other in enumerate(model.blocks) if other is block))

    for block in model.blocks:
        block.register_forward_pre_hook(look)
    model(make_clip()).square().mean().backward()
    assert turns == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    assert all(p.data_ptr() == place for p, place in host.items())


def test_nothing_of_the_graph_keeps_the_weights() -> None:
    """Autograd lets go of a block's weights with its turn; on the device they are overwritten."""
    model = ListeningBlocks(streamed=True)
    output = model(make_clip())
    assert model.weights is not None
    memory = [StorageWeakRef(m.untyped_storage()) for m in device_memory(model.weights)]
    model.weights.release()
    assert len(memory) == 2 and all(storage.expired() for storage in memory)
    output.square().mean().backward()


def device_memory(weights: StreamedBlocks) -> list[torch.Tensor]:
    ring = weights._ring
    assert ring is not None
    return [*ring.free, *(memory for _, memory, _ in ring._waiting)]


def test_names_values_and_trained_parameters_stay() -> None:
    resident, streamed = ListeningBlocks(), ListeningBlocks(streamed=True)
    trained = {name: p for name, p in streamed.named_parameters() if p.requires_grad}
    streamed(make_clip()).square().mean().backward()
    mine, theirs = streamed.state_dict(), resident.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert all(streamed.get_parameter(name) is p for name, p in trained.items())
    in_host_memory = set(streamed.weights.parameters())
    assert in_host_memory == {p for block in streamed.blocks for p in frozen(block)}


def test_weights_that_are_filled_in_later_are_used() -> None:
    first, second = ListeningBlocks(), ListeningBlocks(streamed=True)
    clip = make_clip()
    second(clip).square().mean().backward()
    with torch.no_grad():
        for model in (first, second):
            for block in model.blocks:
                for parameter in frozen(block):
                    parameter.mul_(1.25)
        assert torch.equal(first(clip), second(clip))


def test_blocks_may_leave_weights_where_they_are() -> None:
    model = ListeningBlocks()
    expected = model(make_clip()).detach()
    streamed = StreamedBlocks(model.blocks, leave=("norm1.linear", "norm1_context.linear"))
    names = {name for name, p in model.named_parameters() if p in set(streamed.parameters())}
    assert names and not any("norm1" in name for name in names)
    left = [p for n, p in model.named_parameters() if "norm1" in n and not p.requires_grad]
    places = [p.data_ptr() for p in left]
    model.weights = streamed
    assert torch.equal(model(make_clip()), expected)
    assert len(left) == 4 * NUM_BLOCKS and [p.data_ptr() for p in left] == places


def test_a_move_meets_the_trained_parameters_and_not_the_others() -> None:
    model = ListeningBlocks(streamed=True)
    assert model.weights is not None
    host = {p: (p.data_ptr(), p.data.clone()) for p in model.weights.parameters()}
    met = []

    def record(tensor: torch.Tensor) -> torch.Tensor:
        met.append(tensor.numel())
        return tensor.clone()

    assert model._apply(record) is model
    others = [p for p in model.parameters() if p not in host]
    assert sorted(size for size in met if size) == sorted(p.numel() for p in others)
    for parameter, (place, value) in host.items():
        assert parameter.data_ptr() == place and torch.equal(parameter, value)
    model.to("cpu").float()
    assert all(p.data_ptr() == place for p, (place, _) in host.items())


def test_weights_in_host_memory_keep_their_type() -> None:
    model = ListeningBlocks(streamed=True)
    with pytest.raises(ValueError, match="float32 and cannot become torch.bfloat16"):
        model.to(torch.bfloat16)
    assert model.weights is not None
    assert all(p.dtype == torch.float32 and p.numel() for p in model.weights.parameters())


def test_a_failed_move_leaves_the_weights() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="no memory"), kept_on_cpu(layer.parameters()):
        assert layer.weight.numel() == 0
        raise RuntimeError("no memory")
    assert layer.weight.shape == (2, 2)


def test_a_pass_that_was_given_up_leaves_nothing_behind() -> None:
    model, clip = ListeningBlocks(streamed=True), make_clip()
    with torch.no_grad():
        expected = model(clip)
        assert model.weights is not None
        with pytest.raises(KeyboardInterrupt), model.weights.on_device(1, CPU, then=[2]):
            raise KeyboardInterrupt
        with model.weights.on_device(3, CPU, then=[4]):
            pass  # given up between two blocks: 4 is on its way and will not be asked for
        with watched_weights() as watched:
            assert torch.equal(model(clip), expected)
    assert watched.copies == NUM_BLOCKS


def test_fewer_than_none_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match="ahead is -1; it must be at least 0"):
        StreamedBlocks([nn.Linear(2, 2)], ahead=-1)
