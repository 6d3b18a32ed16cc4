"""Memory that is followed on the meta device, and the plan that it holds."""

from pathlib import Path

import pytest
import torch

from benchmarks import memory_plan
from benchmarks.meta_memory import (
    PLANNED,
    LiveBytes,
    attention_as_on_a_gpu,
    deviation_from_a_line,
    held_by_training,
    simulated_sampling,
    simulated_step,
)
from benchmarks.profiles import build_on_meta, read_profile
from benchmarks.report import GIB, read_figures
from musicinfuser.clip_size import num_visual_tokens
from preflight.memory import TrainingSizes, frozen_on_device, total_bytes, training_rows
from tests.conftest import ROOT

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
    with live, live.left_out():
        elsewhere = torch.empty(5, device="meta")
    with live:
        three = elsewhere + 1
    assert live.now == 20
    del elsewhere, three
    assert live.now == 0


def test_attention_keeps_no_logits() -> None:
    tokens, heads = 512, 2
    query = torch.empty(1, heads, tokens, 64, device="meta", dtype=torch.bfloat16)
    query.requires_grad_()
    attend = torch.nn.functional.scaled_dot_product_attention
    with LiveBytes([query]) as live, attention_as_on_a_gpu():
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    assert live.peak < heads * tokens**2 * 2
    assert torch.nn.functional.scaled_dot_product_attention is attend


def measured(
    policy: str, layers: int, frames: int = 73, *, profile: str = "80gb", autocast: bool = False
) -> dict:
    config = read_profile(profile)
    # Without audio blocks, so that every block adds the same.
    model = build_on_meta(
        config, num_layers=layers, layers=[0], gradient_checkpointing=policy, compile_blocks=False
    )
    return simulated_step(model, frames, 480, 848, autocast=autocast)


@pytest.mark.parametrize(
    ("policy", "kept_per_block"), [("full", 0.12), ("self_attention", 0.24), ("attention", 0.24)]
)
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
    # One block hears, so attention to audio adds next to nothing.
    after_forward, peak = PLANNED["self_attention" if policy == "attention" else policy]
    assert 0.9 * after_forward < whole["after_forward"] < after_forward
    assert 0.85 * peak < whole["peak"] < peak


def test_blocks_in_host_memory_add_nothing_but_gradients() -> None:
    """Of 48 blocks, the last one's input and the weights of two are on the device."""
    few, more = (measured("full", n, profile="24gb") for n in (3, 4))
    # And of each block its modulations and the caption's tokens.
    assert 0 <= more["after_forward"] - few["after_forward"] < 2**18
    grown = more["peak"] - few["peak"] - (more["gradients"] - few["gradients"])
    assert 0 <= grown < 2**18
    # Over the resident step's: two blocks' weights, and two inputs in turn.
    assert 0.3 < (more["peak"] - measured("full", 4)["peak"]) / GIB < 0.85
    models = [
        build_on_meta(read_profile("24gb"), num_layers=n, layers=[0], compile_blocks=False)
        for n in (2, 3)
    ]
    sampling = [simulated_sampling(model, 73, 480, 848) for model in models]
    assert sampling[1] - sampling[0] < 2**18 and sampling[1] < 3 * GIB


def test_the_plan_for_24_gb_holds() -> None:
    result, figures = read_figures(ROOT / "benchmarks" / "results" / "memory_24gb.json")
    assert result["settings"]["profile"] == "24gb" and result["settings"]["layers"] == 48
    totals = {figure.what: figure for figure in figures if figure.what.endswith("together")}
    jobs = ("training, 73", "sampling, 73", "sampling, 145", "decoding, 73", "decoding, 145")
    for job in jobs:
        assert totals[f"{job} frames: together"].value < 0.9 * 22
        assert totals[f"{job} frames: together"].limit == 22


def gigabytes(name: str) -> dict[str, float]:
    """The sums of a committed plan by job, in GB."""
    _, figures = read_figures(ROOT / "benchmarks" / "results" / f"memory_{name}.json")
    sums = [figure for figure in figures if figure.what.endswith(": together")]
    return {f.what.removesuffix(": together"): f.value * GIB / 1e9 for f in sums}


def test_the_plans_of_wan_hold() -> None:
    found = gigabytes("wan_1b")
    for policy, limit in (("full", 13.5), ("self_attention", 16.5), ("attention", 20.5)):
        assert found[f"training, 81 frames, {policy}"] <= limit
    assert max(gigabytes("wan_1b_24gb").values()) <= 9
    assert max(gigabytes("wan_5b").values()) <= 24
    assert max(gigabytes("wan_14b_24gb").values()) <= 24


@pytest.mark.parametrize(
    ("plan", "profile", "frames", "job"),
    [
        ("wan_1b", "wan_1b", 81, "training, 81 frames, self_attention"),
        ("wan_1b_24gb", "wan_1b+wan_24gb", 81, "training, 81 frames"),
        ("wan_5b", "wan_5b", 73, "training, 73 frames"),
        ("wan_14b_24gb", "wan_14b+wan_14b_24gb", 81, "training, 81 frames"),
    ],
)
def test_what_check_estimates_is_near_a_plan(
    plan: str, profile: str, frames: int, job: str
) -> None:
    model = build_on_meta(read_profile(profile), compile_blocks=False)
    tokens = num_visual_tokens(frames, 480, 832, geometry=model.kind.geometry)
    begins = model.kind.geometry.takes_image
    sizes = TrainingSizes.of(model, num_tokens=tokens, first_given=begins)
    assert total_bytes(training_rows(sizes)) / 1e9 == pytest.approx(gigabytes(plan)[job], rel=0.05)


def test_a_small_wan_is_counted_with_autocast_alone(tmp_path: Path) -> None:
    """All that is there is followed: blocks in host memory, and levels of frames."""
    model = build_on_meta(
        read_profile("wan_5b+wan_24gb"), num_layers=3, size="small", compile_blocks=False
    )
    with pytest.raises(ValueError, match="parts of wan_5b stay in fp32, so it is counted with"):
        simulated_step(model, 9, 64, 64)
    plain = simulated_step(model, 9, 64, 64, autocast=True)
    assert plain["frozen_gradients"] == 0
    model = build_on_meta(
        read_profile("wan_5b+wan_24gb"), num_layers=3, size="small", compile_blocks=False
    )
    given = simulated_step(model, 9, 64, 64, autocast=True, first_given=True)
    assert given["gradients"] == plain["gradients"]
    # Six values of each channel for each token, in bf16.
    assert given["after_forward"] - plain["after_forward"] >= 12 * 6 * 128 * 2


def test_a_plan_is_the_sum_of_what_is_on_the_device(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    memory_plan.main(
        ["--profile", "24gb", "--out", str(out), "--size", "small", "--layers", "2", "--height",
         "32", "--width", "32", "--train_frames", "7", "--sample_frames", "7"]
    )  # fmt: skip
    values = {figure.what: figure.value for figure in read_figures(out)[1]}
    parts = [size for what, size in values.items() if what.startswith("training, 7 frames: ")]
    assert parts[-1] == pytest.approx(sum(parts[:-1]))
    resident, streamed = (
        build_on_meta(read_profile(name), num_layers=2, size="small", compile_blocks=False)
        for name in ("80gb", "24gb")
    )
    named = streamed.backbone.named_parameters()
    there = [p for name, p in named if "_blocks" not in name or ".norm1" in name and "bias" in name]
    assert values["training, 7 frames: frozen weights"] * GIB == sum(p.nbytes for p in there)
    frozen = [p for p in resident.parameters() if not p.requires_grad]
    assert frozen_on_device(resident) == sum(p.nbytes for p in frozen)
    assert frozen_on_device(streamed) == sum(p.nbytes for p in there)


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
