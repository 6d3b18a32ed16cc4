"""Memory that is followed on the meta device, and the plan that it holds."""

import pytest
import torch

from benchmarks.live_bytes import LiveBytes, attention_as_on_a_gpu
from benchmarks.meta_memory import (
    PLANNED,
    deviation_from_a_line,
    held_by_training,
    simulated_step,
)
from benchmarks.profiles import build_on_meta, read_profile
from benchmarks.report import GIB

LAYERS = 48


def test_counts_what_is_alive_and_the_most_that_was() -> None:
    weight = torch.empty(10, 10, device="meta")
    with LiveBytes([weight]) as live:
        one = weight + 1
        assert live.now == 400
        view = one.view(100)
        assert live.now == 400
        two = view * 2
        del one
        assert live.now == 800
        del view
        assert live.now == 400
        del two
    assert (live.now, live.peak) == (0, 800)


def test_attention_keeps_no_logits() -> None:
    tokens, heads = 512, 2
    query = torch.empty(1, heads, tokens, 64, device="meta", dtype=torch.bfloat16)
    query.requires_grad_()
    attend = torch.nn.functional.scaled_dot_product_attention
    with LiveBytes([query]) as live, attention_as_on_a_gpu():
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    assert live.peak < heads * tokens**2 * 2
    assert torch.nn.functional.scaled_dot_product_attention is attend


def measured(policy: str, layers: int, frames: int = 73, *, autocast: bool = False) -> dict:
    config = read_profile()
    # Without audio blocks, so that every block adds the same.
    model = build_on_meta(
        config, num_layers=layers, layers=[0], gradient_checkpointing=policy, compile_blocks=False
    )
    return simulated_step(model, frames, 480, 848, autocast=autocast)


@pytest.mark.parametrize(("policy", "kept_per_block"), [("full", 0.12), ("attention", 0.24)])
def test_the_plan_of_a_step_at_full_width(policy: str, kept_per_block: float) -> None:
    """Blocks are alike, so few of them tell what 48 hold; GiB at 73 frames of 480x848.

    Of the 16 blocks with audio each adds its attention's output where that is kept, and gradients.
    """
    few, more = measured(policy, 3), measured(policy, 4)
    assert few["frozen_gradients"] == more["frozen_gradients"] == 0
    whole = {
        name: (more[name] + (LAYERS - 4) * (more[name] - few[name])) / GIB
        for name in ("after_forward", "peak")
    }
    per_block = (more["after_forward"] - few["after_forward"]) / GIB
    assert per_block == pytest.approx(kept_per_block, abs=0.005)
    after_forward, peak = PLANNED[policy]
    assert 0.9 * after_forward < whole["after_forward"] < after_forward
    assert 0.85 * peak < whole["peak"] < peak


def test_memory_is_linear_in_tokens() -> None:
    steps = [measured("attention", 2, frames) for frames in (37, 73, 145)]
    tokens = [7 * 1590, 13 * 1590, 25 * 1590]
    for name in ("after_forward", "peak"):
        assert deviation_from_a_line([step[name] for step in steps], tokens) < 0.02
    assert deviation_from_a_line([1, 3, 3], [1, 2, 3]) == pytest.approx(1 / 3)


def test_adapters_in_fp32_cost_their_gradients() -> None:
    plain, mixed = measured("full", 2), measured("full", 2, autocast=True)
    assert mixed["gradients"] == 2 * plain["gradients"]
    assert plain["peak"] < mixed["peak"] < 1.3 * plain["peak"]


def test_the_optimizer_holds_adapters_only() -> None:
    model = build_on_meta(read_profile(), num_layers=2)
    sizes, num_frozen = held_by_training(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (sizes["trained_state"], num_frozen) == (16 * trained, 0)
    assert sizes["frozen"] == sum(p.nbytes for p in model.parameters() if not p.requires_grad)
