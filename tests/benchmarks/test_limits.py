"""Counted work against the published sizes and hand-made sums."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.limits import POLICIES, Work, peak_tflops, product_tflops
from benchmarks.profiles import build_on_meta, read_profile
from musicinfuser.clip_size import num_latent_frames, num_visual_tokens

# TFLOP at 73 frames of 480x848 with 256 text tokens and LoRA on the visual stream.
FORWARD = {
    "visual_linears": 224.7, "text_linears": 0.9, "attention": 258.3, "zica_linears": 12.5,
    "lora": 3.1, "forward": 499.6, "backward": 902.7, "useful": 1402.3,
}  # fmt: skip
# Nothing, authors' policy, attention kept, whole blocks: a training step by frames.
STEPS = {
    37: (537, 650, 667, 744),
    61: (1072, 1249, 1276, 1462),
    73: (1402, 1612, 1644, 1902),
    85: (1774, 2016, 2053, 2395),
    145: (4261, 4662, 4724, 5668),
}


@pytest.mark.parametrize("name", FORWARD)
def test_terms_of_one_step(name: str) -> None:
    work = Work()
    found = work.terms[name] if name in work.terms else getattr(work, name)
    assert found == pytest.approx(FORWARD[name], abs=0.06)


@pytest.mark.parametrize("num_frames", STEPS)
def test_steps_by_policy_and_length(num_frames: int) -> None:
    tokens = num_visual_tokens(num_frames, 480, 848)
    work = Work(num_tokens=tokens, num_frames=num_latent_frames(num_frames))
    counted = {policy: work.training_step(policy) for policy in POLICIES}
    heard_again = counted.pop("self_attention") - counted["attention"]
    assert heard_again == pytest.approx(work.terms["zica_attention"])
    assert list(counted.values()) == pytest.approx(STEPS[num_frames], abs=0.6)


def test_sampling_is_a_pass_with_text_and_one_without() -> None:
    # 30 valid tokens, 64 steps.
    assert Work(num_text_tokens=30).sampling(64) == pytest.approx(62_700, rel=1e-3)
    long = Work(num_tokens=num_visual_tokens(145, 480, 848), num_frames=25, num_text_tokens=30)
    assert long.sampling(64) == pytest.approx(178_000, rel=2e-3)


def test_linears_are_what_torch_counts() -> None:
    """One block at full width on the meta device; attention is left out on both sides."""
    model = build_on_meta(read_profile(), num_layers=1, lora=None, compile_blocks=False)
    block = model.backbone.transformer_blocks[0]
    names = ("to_q", "to_k", "to_v")
    tokens = torch.empty(20_670, 3072, dtype=torch.bfloat16, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for name in names:
            getattr(block.attn1, name)(tokens)
        block.attn1.to_out[0](tokens)
        block.ff(tokens)
    assert counter.get_total_flops() / 1e12 == pytest.approx(
        Work(num_layers=1).terms["visual_linears"]
    )


def test_the_rate_of_this_device_is_timed() -> None:
    rate, source = peak_tflops(torch.device("cpu"))
    assert 1e-3 < rate < 100 and "timed here" in source
    assert product_tflops(torch.device("cpu")) > 1e-3
