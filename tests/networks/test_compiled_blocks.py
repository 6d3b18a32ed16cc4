"""Blocks under torch's compiler: whole graphs, few of them, and the numbers of eager blocks."""

import json
from contextlib import nullcontext

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from musicinfuser.memory.settings import ATTENTION_OPERATIONS
from musicinfuser.networks import adapted_block
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones.mochi_block import compiled_run
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.adapted import with_memory
from tests.networks.counted_operations import CountedOperations

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
LENGTHS = (12, 5, 0, 32, 77, 256)


@pytest.fixture
def make(small_parts, tmp_path, randomise):
    """``make(num_layers, layers, **changes)``: a model on random weights of the small size."""

    def build(num_layers, layers, *, dtype="float32", **changes):
        config = json.loads((small_parts / "transformer" / "config.json").read_text())
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config | {"num_layers": num_layers}))
        return randomise(
            MusicModel(
                build_backbone(BackboneSpec(config=str(path), dtype=dtype)),
                layers=layers,
                zica=ZicaSpec(num_heads=4),
                lora=LoraSpec(rank=2, alpha=2.0),
                audio_width=96,
                **with_memory(changes),
            )
        )

    yield build
    torch._dynamo.reset()


def step(model, length, *, autocast=False, device="cpu"):
    """Velocity and gradients for a caption of some length."""
    stream = torch.Generator().manual_seed(length)
    latents, text, audio = (
        torch.randn(*shape, generator=stream).to(device)
        for shape in ((1, 12, 3, 4, 6), (1, max(length, 1), 64), (1, 20, 96))
    )
    model.zero_grad(set_to_none=True)
    sigma = torch.tensor([300.0], device=device)
    with torch.autocast(device, torch.bfloat16) if autocast else nullcontext():
        out = model(latents, text, sigma, None, audio, text_lengths=(length,))
    out.float().square().mean().backward()
    return out.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def assert_close(found, expected, *, tolerance):
    """Outputs and gradients, relative to their norms."""
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=tolerance)
    for name, gradient in expected[1].items():
        # A bias of all keys changes no attention: its gradient is rounding alone.
        if gradient is None or gradient.norm() < 1e-7 or name.endswith("to_k.bias"):
            continue
        assert (found[1][name] - gradient).norm() / gradient.norm() < tolerance, name


IN_HOST_MEMORY = {
    "gradient_checkpointing": "full",
    "stream_blocks": True,
    "offload_inputs": True,
    "modulations_on_host": True,
}


@pytest.mark.parametrize(
    ("num_layers", "layers", "num_kinds", "ways"),
    [
        (3, [0, 1, 2], 2, {}),
        pytest.param(6, [1, 2, 4, 5], 3, {}, marks=pytest.mark.slow),
        pytest.param(6, [1, 2, 4, 5], 3, IN_HOST_MEMORY, marks=pytest.mark.slow),
    ],
)
def test_graphs_depend_on_the_kind_of_block_and_on_having_a_caption(
    make, monkeypatch, num_layers, layers, num_kinds, ways
):
    """With and without audio, and the last block: three kinds; some text or none: two each."""
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    # One graph more, and torch gives up with an error instead of going on without a graph.
    monkeypatch.setattr(adapted_block, "MAX_GRAPHS", 2 * num_kinds)
    settings = {"gradient_checkpointing": "attention"}
    eager = make(num_layers, layers, **settings)
    compiled = make(num_layers, layers, compile_blocks=True, **(settings | ways))
    compiled.set_block_run(compiled_run(backend=count))
    torch._dynamo.utils.counters.clear()
    for length in LENGTHS:
        found, expected = step(compiled, length), step(eager, length)
        assert torch.equal(found[0], expected[0])
        assert all(torch.equal(g, expected[1][n]) for n, g in found[1].items() if g is not None)
    assert len(graphs) == 2 * num_kinds
    assert not torch._dynamo.utils.counters["graph_break"]
    # Each holds a whole block with its checkpoint inside, if it is not around it.
    for graph in graphs:
        names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        assert sum("checkpoint" in name for name in names) == (0 if ways else 1)


def attention_in_graphs(model, length):
    """Attentions in the forward and in the backward graph of a step, and what it gave."""
    counts = {"forward": 0, "backward": 0}

    def counting(name):
        def compile_nothing(graph, inputs):
            nodes = [n for n in graph.graph.nodes if n.target in ATTENTION_OPERATIONS]
            counts[name] += len(nodes)
            return make_boxed_func(graph)

        return compile_nothing

    backend = aot_autograd(fw_compiler=counting("forward"), bw_compiler=counting("backward"))
    model.set_block_run(compiled_run(backend=backend))
    return counts, step(model, length)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "in_backward"), [("attention", 0), ("full", 2)])
def test_what_is_recomputed_is_in_the_graphs(make, policy, in_backward):
    """One block with audio: two attentions, which `attention` runs once and `full` twice."""
    settings = {"gradient_checkpointing": policy, "compile_blocks": True}
    counts, found = attention_in_graphs(make(1, [0], **settings), 7)
    assert counts == {"forward": 2, "backward": in_backward}
    assert_close(found, step(make(1, [0]), 7), tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("num_layers", "autocast"), [(2, False), (1, True)])
def test_inductor_gives_the_numbers_of_eager_blocks(make, num_layers, autocast):
    dtype = "bfloat16" if autocast else "float32"
    settings = {"gradient_checkpointing": "attention", "dtype": dtype}
    layers = list(range(num_layers))
    eager = make(num_layers, layers, **settings)
    compiled = make(num_layers, layers, compile_blocks=True, **settings)
    for length in (7, 9):
        found, expected = (step(model, length, autocast=autocast) for model in (compiled, eager))
        assert_close(found, expected, tolerance=0.05 if autocast else 1e-4)


@pytest.mark.gpu
def test_on_a_gpu_blocks_compile_and_keep_attention(make):
    """In bf16, as training runs them; one attention per block and adapter, and the caption's."""
    settings = {"gradient_checkpointing": "attention", "dtype": "bfloat16"}
    eager = make(4, [1, 3], **settings).cuda()
    compiled = make(4, [1, 3], compile_blocks=True, **settings).cuda()
    for length in (7, 0, 9):
        found = step(compiled, length, autocast=True, device="cuda")
        assert_close(found, step(eager, length, autocast=True, device="cuda"), tolerance=0.05)
    with CountedOperations() as operations:
        step(eager, 7, autocast=True, device="cuda")
    assert operations.num_attention == 1 + 4 + 2
