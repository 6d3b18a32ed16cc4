"""What backward computes again: counted, and without influence on any number."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from musicinfuser.memory.settings import ATTENTION_OPERATIONS
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.zica import ZicaSpec
from tests.networks.counted_operations import CountedOperations

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
POLICIES = ("none", "attention", "self_attention", "full")
RAGGED, EVEN = (7, 10), (10, 10)


def gradients(model, clip, *, lengths=RAGGED, dtype=torch.float32):
    """Of a loss, by name."""
    with torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext():
        out = model(clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=lengths)
    out.float().square().mean().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def counted(model, clip, **options):
    """What runs for the gradients."""
    with CountedOperations() as operations:
        gradients(model, clip, **options)
    return operations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [RAGGED, EVEN, (0, 0)])
def test_attention_runs_once_unless_all_is_recomputed(make_model, clip, dtype, lengths):
    """Three blocks and two adapters, and before them the pooling of the caption."""
    found = {}
    for policy in POLICIES:
        model = make_model(gradient_checkpointing=policy, dtype=dtype)
        operations = counted(model, clip, dtype=dtype, lengths=lengths)
        found[policy] = operations.num_attention, operations.names.count("silu")
    assert [number for number, _ in found.values()] == [1 + 5, 1 + 5, 1 + 5 + 2, 1 + 10]
    # All else is computed again under all three.
    assert found["attention"][1] == found["self_attention"][1] == found["full"][1]
    assert found["full"][1] > found["none"][1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("form", "share_qkv_a"),
    [("cross_attention", False), ("cross_attention", True), ("feature_addition", False)],
)
def test_gradients_are_the_same_bit_for_bit(make_model, randomise, clip, form, share_qkv_a, dtype):
    found = []
    for policy in POLICIES:
        model = make_model(
            zica=ZicaSpec(form=form, num_heads=4),
            lora=LoraSpec(rank=2, alpha=2.0, share_qkv_a=share_qkv_a),
            gradient_checkpointing=policy,
            dtype=dtype,
        )
        found.append(gradients(randomise(model), clip, dtype=dtype))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name in other:
            assert torch.equal(found[0][name], other[name]), name
    assert sum(g.any().item() for g in found[0].values()) >= len(found[0]) - 2


def test_recomputing_keeps_fewer_tensors(make_model, clip):
    """The sizes autograd holds on to: inputs of blocks, not what happens inside them."""
    held = {}
    for policy in ("none", "full"):
        model = make_model(gradient_checkpointing=policy)
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=EVEN)
        held[policy] = sum(sizes)
    assert held["full"] < held["none"] / 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("lengths", [RAGGED, EVEN])
def test_a_step_waits_for_no_value(make_model, clip, policy, lengths):
    """With lengths on the host, neither forward, backward nor the optimizer reads one back."""
    model = make_model(gradient_checkpointing=policy)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    gradients(model, clip, lengths=lengths)
    optimizer.step()
    # Adam counts its steps on the host, whatever device the weights are on.
    on_host = {id(state["step"]) for state in optimizer.state.values()}
    with CountedOperations() as all_operations:
        operations = counted(model, clip, lengths=lengths)
        optimizer.step()
    assert "_scaled_dot_product_flash_attention_for_cpu_backward" in operations.names
    assert {"addcdiv_", "_foreach_addcdiv_"} & set(all_operations.names)
    assert [t for t in all_operations.waited_for if id(t) not in on_host] == []


def test_the_count_sees_what_is_to_be_avoided(pristine_backbone, clip):
    with torch.no_grad(), CountedOperations() as operations:
        pristine_backbone(clip.latents, clip.text, clip.timestep, clip.text_mask)
    assert "nonzero" in operations.names and operations.waited_for


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_kept_operations_are_those_attention_becomes(dtype, with_mask, needs_gradient):
    query, key = (torch.randn(2, 4, n, 16, dtype=dtype) for n in (10, 12))
    query.requires_grad_(needs_gradient)
    mask = torch.arange(12)[None, None, None] < 7 if with_mask else None
    with CountedOperations() as operations:
        F.scaled_dot_product_attention(query, key, key, attn_mask=mask)
    kept = {operation.overloadpacket.__name__ for operation in ATTENTION_OPERATIONS}
    assert kept & set(operations.names) and operations.num_attention == 1


def test_every_fused_kernel_of_torch_is_kept():
    """What remains of the name in torch: fallbacks, quantised variants and backward passes."""
    kept = {operation.name() for operation in ATTENTION_OPERATIONS}
    known = {
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::_scaled_dot_product")
    }
    others = {n for n in known if "_math" in n or n.endswith(("backward", ".quantized"))}
    assert known - others == kept
