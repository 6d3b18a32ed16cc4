"""Weights and inputs in host memory change nothing about what is computed."""

from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel

from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.lora import LoraSpec
from tests.adapted_blocks import (
    ListeningBlocks,
    assert_same,
    make_clip,
    outputs_and_gradients,
    run_block,
)
from tests.networks.late_copies import copy_late

CASES = {  # type of the frozen weights, autocast, shared A
    "fp32": (torch.float32, False, False),
    "fp32 weights, bf16 autocast, shared A": (torch.float32, True, True),
    "bf16 weights, bf16 autocast": (torch.bfloat16, True, False),
    "bf16 weights, bf16 autocast, shared A": (torch.bfloat16, True, True),
}
IN_HOST_MEMORY = [
    {"streamed": True},
    {"offload_inputs": True},
    {"streamed": True, "ahead": 2, "offload_inputs": True},
]


@pytest.mark.parametrize("case", CASES)
def test_two_accumulated_steps_are_equal_bit_for_bit(monkeypatch, case):
    dtype, autocast, share_qkv_a = CASES[case]
    lora = LoraSpec(rank=2, alpha=2.0, share_qkv_a=share_qkv_a)
    clips = [make_clip(seed=seed, dtype=dtype) for seed in (0, 1)]

    def run(policy="none", **settings):
        model = ListeningBlocks(lora=lora, dtype=dtype, **settings)
        return outputs_and_gradients(model, clips, policy=policy, autocast=autocast)

    resident = run()
    learning = [name for name, gradient in resident[1].items() if gradient.any()]
    # Queries of the text go nowhere in the last block, whose text output is dropped.
    assert len(learning) == len(resident[1]) - (1 if share_qkv_a else 2)
    assert_same(run("torch"), resident)
    assert_same(run("pass"), resident)
    for settings in IN_HOST_MEMORY:
        assert_same(run(**settings), resident)
    copy_late(monkeypatch)
    assert_same(run(**IN_HOST_MEMORY[-1]), resident)


@pytest.mark.parametrize("is_late", [False, True])
def test_without_gradients_and_then_with_them(monkeypatch, is_late):
    if is_late:
        copy_late(monkeypatch)
    clip = make_clip()
    resident = outputs_and_gradients(ListeningBlocks(), [clip])
    for ahead in (0, 1, 2):
        model = ListeningBlocks(streamed=True, ahead=ahead)
        for mode in (torch.inference_mode, torch.no_grad):
            with mode():
                assert torch.equal(model(clip), resident[0][0])
                assert torch.equal(model(clip), resident[0][0])
        # What was made without gradients, in a validation before training, serves with them.
        assert_same(outputs_and_gradients(model, [clip]), resident)


def test_gradients_leave_once_and_by_the_outer_graph():
    """What DDP hooks into, and ``torch.autograd.grad``, see what they see without checkpoints."""
    model, clip = ListeningBlocks(streamed=True, offload_inputs=True), make_clip()
    expected = outputs_and_gradients(ListeningBlocks(), [clip])[1]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    calls = []
    for name, parameter in trained.items():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: calls.append(name))
    found = torch.autograd.grad(model(clip).square().mean(), list(trained.values()))
    assert not calls and all(p.grad is None for p in trained.values())
    for name, gradient in zip(trained, found, strict=True):
        assert torch.equal(gradient, expected[name]), name
    model(clip).square().mean().backward()
    assert sorted(calls) == sorted(trained)


def test_backward_itself_is_not_under_autocast():
    """Attention by matrix products would then be differentiated in bf16."""
    clips = [make_clip()]
    with sdpa_kernel(SDPBackend.MATH):
        resident = outputs_and_gradients(ListeningBlocks(), clips, autocast=True)
        model = ListeningBlocks(streamed=True)
        assert_same(outputs_and_gradients(model, clips, autocast=True), resident)


def test_passes_may_overlap():
    """Two forward passes, then their backward passes in the same order."""
    clips = [make_clip(seed=seed) for seed in (0, 1)]
    found = []
    for settings in ({}, {"streamed": True, "offload_inputs": True}):
        model = ListeningBlocks(**settings)
        losses = [model(clip).square().mean() for clip in clips]
        for loss in losses:
            loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name]), name


@pytest.mark.parametrize("autocast", [False, True])
def test_backward_within_the_autocast_region(autocast):
    found = []
    for settings in ({}, {"streamed": True, "offload_inputs": True}):
        model = ListeningBlocks(lora=LoraSpec(rank=2, alpha=2.0, share_qkv_a=True), **settings)
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            for seed in (0, 1):
                model(make_clip(seed=seed)).float().square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name]), name


def test_what_needs_no_gradient_is_not_recomputed():
    model, clip = ListeningBlocks(lora=None, layers=(3,), streamed=True), make_clip()
    calls = []
    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
    model(clip).square().mean().backward()
    assert calls == [0, 1, 2, 3, 4, 4, 3]
    resident = outputs_and_gradients(ListeningBlocks(lora=None, layers=(3,)), [clip])
    for name, gradient in resident[1].items():
        assert torch.equal(model.get_parameter(name).grad, gradient), name


def test_other_policies_are_refused():
    for policy in ("attention", "none"):
        with pytest.raises(ValueError, match=f"gradient_checkpointing is {policy}, set it to full"):
            MemorySettings(policy, offload_inputs=True)


@pytest.mark.slow
def test_compiled_blocks_share_their_graphs():
    """One graph for ordinary blocks and one for the last, however many; weights are inputs."""
    torch._dynamo.reset()
    clip = make_clip()
    # The first block's input has no gradient otherwise, which is a graph of its own.
    clip.visual.requires_grad_(), clip.text.requires_grad_()
    settings = {"num_blocks": 4, "layers": ()}
    found = []
    for in_host_memory in ({}, {"streamed": True, "offload_inputs": True}):
        model = ListeningBlocks(**settings, **in_host_memory)
        counter = CompileCounterWithBackend("aot_eager")
        model.compiled = torch.compile(
            run_block, fullgraph=True, backend=counter, isolate_recompiles=True
        )
        found.append(outputs_and_gradients(model, [clip, clip], policy="torch"))
        assert counter.frame_count == 2
    assert_same(found[1], found[0])
