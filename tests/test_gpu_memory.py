"""Weights and inputs of blocks in host memory, on a CUDA device: ``pytest -m gpu``."""

import gc

import pytest
import torch
from diffusers import MochiTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.random_model import give_weights
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.adapted_blocks import (
    ListeningBlocks,
    assert_same,
    make_clip,
    move_clip,
    outputs_and_gradients,
)
from tests.cuda_sync import nothing_waits

pytestmark = pytest.mark.gpu
HEAD_WIDTH, NUM_BLOCKS = 256, 8
IN_HOST_MEMORY = [
    {"streamed": True},
    {"streamed": True, "ahead": 0},
    {"offload_inputs": True},
    {"streamed": True, "ahead": 2, "offload_inputs": True},
]


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("these tests need a CUDA device")


def build(**settings: object) -> ListeningBlocks:
    return ListeningBlocks(num_blocks=NUM_BLOCKS, head_width=HEAD_WIDTH, **settings).cuda()


def clips(number: int, *, num_tokens: int = 768, dtype: torch.dtype = torch.float32):
    sizes = {"head_width": HEAD_WIDTH, "num_tokens": num_tokens, "dtype": dtype}
    return [move_clip(make_clip(seed=seed, **sizes), "cuda") for seed in range(number)]


def weight_bytes(model: ListeningBlocks) -> int:
    return sum(p.nbytes for p in model.blocks[0].parameters() if not p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_steps_are_equal_bit_for_bit(dtype: torch.dtype) -> None:
    """Copies run beside the computation; one that came too early or too late would show."""
    settings = {"autocast": dtype == torch.bfloat16, "device": "cuda"}
    with sdpa_kernel(SDPBackend.MATH):
        steps = clips(6, dtype=dtype)
        resident = outputs_and_gradients(build(dtype=dtype), steps, policy="torch", **settings)
        for in_host_memory in IN_HOST_MEMORY:
            model = build(dtype=dtype, **in_host_memory)
            assert_same(outputs_and_gradients(model, steps, **settings), resident)
            for parameter in model.weights.parameters() if model.weights else ():
                assert parameter.is_cpu and parameter.is_pinned()


def test_sampling_is_equal_and_may_come_before_training() -> None:
    with sdpa_kernel(SDPBackend.MATH):
        [clip] = clips(1)
        resident = outputs_and_gradients(build(), [clip], device="cuda")
        model = build(streamed=True, offload_inputs=True)
        with torch.inference_mode():
            for _ in range(3):
                assert torch.equal(model(clip), resident[0][0])
        assert_same(outputs_and_gradients(model, [clip], device="cuda"), resident)


def test_two_blocks_of_weights_are_on_the_device() -> None:
    [clip] = clips(1, num_tokens=48)
    peaks = []
    for streamed in (False, True):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        model = build(streamed=streamed)
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            model(clip, policy="torch").square().mean().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        expected = (NUM_BLOCKS - 2) * weight_bytes(model)
        del model
    assert peaks[0] - peaks[1] == pytest.approx(expected, rel=0.1)


def test_between_the_passes_inputs_are_in_host_memory() -> None:
    [clip] = clips(1, num_tokens=3072)
    held = []
    for offload_inputs in (False, True):
        model = build(streamed=True, offload_inputs=offload_inputs)
        for _ in range(2):
            before = torch.cuda.memory_allocated()
            loss = model(clip).square().mean()
            held.append(torch.cuda.memory_allocated() - before)
            loss.backward()
            model.zero_grad()
            del loss
    # The first input is the clip's own, the last stays for the start of backward.
    assert held[1] - held[3] == pytest.approx((NUM_BLOCKS - 2) * clip.visual.nbytes, rel=0.05)


def test_a_step_waits_for_nothing() -> None:
    model, [clip] = build(streamed=True, offload_inputs=True), clips(1)

    def step() -> None:
        model(clip).square().mean().backward()

    step()
    with nothing_waits():
        step()


def music_mochi(**settings: object) -> MusicModel:
    """24 blocks of width 1024 in fp32 on the CPU: 1.8 GB."""
    with torch.device("meta"):
        backbone = MochiTransformer3DModel(
            num_attention_heads=8, attention_head_dim=128, num_layers=24, text_embed_dim=64,
            pooled_projection_dim=256, time_embed_dim=64,
        )  # fmt: skip
    backbone.to_empty(device="cpu")
    give_weights(backbone, torch.Generator().manual_seed(0))
    return MusicModel(
        backbone, layers=[1, 22], zica=ZicaSpec(), lora=LoraSpec(rank=4, alpha=4),
        audio_width=32, memory=MemorySettings("full", **settings),
    )  # fmt: skip


def train_and_sample(model: MusicModel) -> int:
    """A step and a pass without gradients; the most bytes that were reserved."""
    stream = torch.Generator("cuda").manual_seed(0)
    latents, text, audio = (
        torch.randn(1, *shape, device="cuda", generator=stream)
        for shape in ((12, 3, 16, 16), (7, 64), (20, 32))
    )
    inputs = (latents, text, torch.tensor([500.0], device="cuda"), None, audio)
    model.cuda()
    loss = model(*inputs, text_lengths=(7,)).square().mean()
    loss.backward()
    with torch.inference_mode():
        again = model(*inputs, text_lengths=(7,)).square().mean()
    torch.testing.assert_close(again, loss.detach(), rtol=1e-4, atol=0)
    assert all(p.grad is not None for p in model.zica.parameters())
    return torch.cuda.max_memory_reserved()


def test_a_model_that_does_not_fit_trains_and_samples_under_a_hard_cap() -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.get_device_properties(0).total_memory
    cap = torch.cuda.memory_reserved() + 2**30
    torch.cuda.set_per_process_memory_fraction(cap / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            train_and_sample(music_mochi())
        gc.collect()  # what the error holds
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        model = music_mochi(stream_blocks=True, offload_inputs=True, modulations_on_host=True)
        assert train_and_sample(model) <= cap
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
