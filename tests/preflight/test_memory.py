from dataclasses import replace

import pytest
import torch
from diffusers import MochiTransformer3DModel

from benchmarks.meta_memory import LiveBytes, attention_as_on_a_gpu, simulated_step
from benchmarks.profiles import build_on_meta, read_profile
from musicinfuser.clip_size import num_visual_tokens
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.backbones import Mochi, Wan
from musicinfuser.networks.backbones.mochi import MOCHI_CONFIG
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from preflight.memory import (
    KEPT_ATTENTION_WIDTHS,
    TrainingSizes,
    activation_bytes,
    add_memory,
    encoding_rows,
    total_bytes,
    training_rows,
)
from preflight.report import Report

# Of configs/base.yaml: Mochi in bf16, ZICA in 16 of 48 blocks, LoRA on both streams.
BASE = TrainingSizes(
    frozen_bytes=2 * 10_027_677_744,
    num_trained=747_804_672,
    num_tokens=20_670,
    width=3072,
    inner_width=8192,
    num_blocks=48,
    num_audio_blocks=16,
    value_bytes=2,
    gradient_checkpointing="attention",
)


def test_tokens() -> None:
    assert num_visual_tokens(73, 480, 848) == BASE.num_tokens
    assert num_visual_tokens(7, 32, 32) == 8


def test_the_shipped_recipe_comes_out_in_its_band() -> None:
    """Simulated at full size: 13.7 GiB between blocks, 18.3 GiB at the peak."""
    rows = {row["memory"]: row["GB"] for row in training_rows(BASE)}
    assert rows["frozen weights"] == pytest.approx(20.06, abs=0.01)
    trained = sum(size for what, size in rows.items() if "fp32" in what)
    assert trained == pytest.approx(12.0, abs=0.05)
    activations = rows["activations, one block recomputed but for attention"]
    assert activations == pytest.approx(18.3 * 2**30 / 1e9, rel=0.05)
    assert 50 < rows["together"] < 54
    assert total_bytes(training_rows(BASE)) == pytest.approx(rows["together"] * 1e9)


def test_a_sharded_backbone_takes_its_share_and_two_whole_blocks() -> None:
    """20.06 GB over 4 devices, and 2/48 of it gathered."""
    rows = {r["memory"]: r["GB"] for r in training_rows(replace(BASE, num_shares=4))}
    assert rows["frozen weights, one of 4 shares"] == pytest.approx(5.01, abs=0.01)
    assert rows["gathered weights of two blocks"] == pytest.approx(0.84, abs=0.01)
    saved = total_bytes(training_rows(BASE)) / 1e9 - rows["together"]
    assert saved == pytest.approx(20.06 - 5.01 - 0.84, abs=0.02)


@pytest.mark.parametrize(("policy", "peak"), [("full", 10.9), ("attention", 18.3), ("none", 168)])
def test_each_policy_comes_out_near_what_was_simulated(policy: str, peak: float) -> None:
    kept = activation_bytes(replace(BASE, gradient_checkpointing=policy))
    assert kept / 2**30 == pytest.approx(peak, rel=0.12)


def test_modulations_on_the_host_leave_the_device() -> None:
    """27 % of the weights: 5.4 GB, of which two of 48 blocks' are on a visit."""
    sizes = replace(BASE, on_host_bytes=2 * 2_704_000_000)
    rows = {row["memory"]: row["GB"] for row in training_rows(sizes)}
    assert rows["frozen weights"] == pytest.approx(20.06 - 5.41, abs=0.01)
    assert rows["modulations of two blocks, copied"] == pytest.approx(0.225, abs=0.01)
    shared = {r["memory"]: r["GB"] for r in training_rows(replace(sizes, num_shares=4))}
    assert shared["frozen weights, one of 4 shares"] == pytest.approx(14.65 / 4, abs=0.01)
    assert "modulations of two blocks, copied" not in {r["memory"] for r in training_rows(BASE)}


def test_blocks_in_host_memory_leave_two_of_them_and_three_inputs() -> None:
    """configs/profiles/24gb.yaml: 14.4 GB of weights in 48 blocks, inputs of 0.127 GB each."""
    full = replace(BASE, gradient_checkpointing="full", on_host_bytes=2 * 2_704_000_000)
    small = replace(full, streamed_bytes=14_450_000_000, offload_inputs=True)
    resident, rows = (
        {row["memory"]: row["GB"] for row in training_rows(sizes)} for sizes in (full, small)
    )
    assert rows["frozen weights"] == pytest.approx(20.06 - 5.41 - 14.45, abs=0.01)
    assert rows["weights of two blocks, copied"] == pytest.approx(14.45 / 24, abs=0.001)
    activations = "activations, one block recomputed"
    saved = resident[activations] - rows[activations]
    assert saved == pytest.approx(45 * 20_670 * 3072 * 2 / 1e9, abs=0.001)
    assert "weights of two blocks, copied" not in resident
    assert 18.9 < rows["together"] < 19.9


def kept_bytes(num_blocks: int, *, layers: list[int], gradient_checkpointing: str) -> int:
    """What is kept after a forward pass of Mochi's blocks at full size, weights left out."""
    config = MOCHI_CONFIG | {"num_layers": num_blocks}
    with torch.device("meta"):
        backbone = MochiTransformer3DModel.from_config(config)
        model = MusicModel(
            backbone,
            layers=layers,
            zica=ZicaSpec(),
            lora=LoraSpec(rank=64, alpha=64),
            memory=MemorySettings(gradient_checkpointing),
        )
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    # Rotations go through an autocast region that the meta device does not have.
    model.kind.rotary = lambda t, h, w, device: (torch.empty(t * h * w, 24, 64, device="meta"),) * 2
    with torch.device("meta"), attention_as_on_a_gpu(), LiveBytes(model.parameters()) as live:
        out = model(
            torch.empty(1, 12, 13, 60, 106),
            torch.empty(1, 32, 4096),
            torch.empty(1),
            audio_features=torch.empty(1, 124, 768, dtype=torch.bfloat16),
            text_lengths=(32,),
        )
        return live.now - out.nbytes


def test_shares_of_activations_are_what_is_kept() -> None:
    per_width = BASE.num_tokens * BASE.width * BASE.value_bytes
    plain = {"layers": [], "gradient_checkpointing": "none"}
    block = kept_bytes(3, **plain) - kept_bytes(2, **plain)
    own = block - Mochi.shares.inner_widths * BASE.num_tokens * BASE.inner_width * BASE.value_bytes
    # Autocast gives each of LoRA's four visual inputs a copy that is not counted here.
    assert own / per_width < Mochi.shares.widths < own / per_width + 4.5
    with_audio = kept_bytes(2, layers=[0], gradient_checkpointing="none")
    audio = with_audio - kept_bytes(2, **plain)
    assert audio / per_width == pytest.approx(Mochi.shares.audio_widths, rel=0.05)
    for policy, expected in (("full", 1), ("attention", 1 + KEPT_ATTENTION_WIDTHS)):
        settings = {"layers": [], "gradient_checkpointing": policy}
        between = kept_bytes(3, **settings) - kept_bytes(2, **settings)
        assert between / per_width == pytest.approx(expected, rel=0.02)
    listening = kept_bytes(2, layers=[0], gradient_checkpointing="attention")
    heard = listening - kept_bytes(2, layers=[], gradient_checkpointing="attention")
    assert heard / per_width == pytest.approx(KEPT_ATTENTION_WIDTHS, rel=0.02)
    without, with_audio = (
        kept_bytes(2, layers=layers, gradient_checkpointing="self_attention")
        for layers in ([], [0])
    )
    assert abs(with_audio - without) / per_width < 0.02


@pytest.mark.parametrize(
    ("profile", "frames", "policy", "first_given"),
    [("wan_1b", 81, "full", False), ("wan_5b", 73, "self_attention", True)],
)
def test_the_shares_of_wan_come_out_near_what_is_counted(
    profile: str, frames: int, policy: str, first_given: bool
) -> None:
    """Of four blocks at full width; besides there is the head, which holds little of a whole."""
    model = build_on_meta(
        read_profile(profile), num_layers=4, gradient_checkpointing=policy, compile_blocks=False
    )
    num_tokens = num_visual_tokens(frames, 480, 832, geometry=model.kind.geometry)
    sizes = TrainingSizes.of(model, num_tokens=num_tokens, first_given=first_given)
    step = simulated_step(model, frames, 480, 832, autocast=True, first_given=first_given)
    estimate = activation_bytes(sizes) + 4 * sizes.num_trained
    assert estimate == pytest.approx(step["peak"], rel=0.1)
    if not first_given:
        mochis = replace(sizes, shares=Mochi.shares)
        assert activation_bytes(mochis) > 1.05 * activation_bytes(sizes)


def test_gradients_take_the_place_of_what_leaves() -> None:
    sizes = replace(BASE, shares=Wan.shares, gradient_checkpointing="full")
    inputs, gradients = 48 * 20_670 * 3072 * 2, 4 * BASE.num_trained
    assert 0 < inputs - gradients
    fewer = activation_bytes(replace(sizes, num_trained=0)) - activation_bytes(sizes)
    assert fewer == pytest.approx(gradients)
    # No more leaves than was there.
    most = activation_bytes(replace(sizes, num_trained=10 * BASE.num_trained))
    assert activation_bytes(replace(sizes, num_trained=0)) - most == pytest.approx(inputs)


def test_activations_grow_with_what_they_are_made_of() -> None:
    plain = activation_bytes(BASE)
    assert activation_bytes(replace(BASE, num_tokens=2 * BASE.num_tokens)) == 2 * plain
    for changed in ({"value_bytes": 4}, {"num_blocks": 96}, {"inner_width": 16_384}):
        assert activation_bytes(replace(BASE, **changed)) > 1.05 * plain
    assert activation_bytes(replace(BASE, num_audio_blocks=0)) < plain
    averaged = training_rows(replace(BASE, num_averages=1))
    assert total_bytes(averaged) - total_bytes(training_rows(BASE)) == pytest.approx(
        4 * BASE.num_trained
    )


def encoding(**changes) -> list:
    sizes = {
        "text_bytes": 9.5e9,
        "vae_bytes": 0.9e9,
        "audio_bytes": 0.4e9,
        "shapes": [(7, 64, 64), (73, 480, 848)],
        "channels": 64,
        "value_bytes": 2,
        "is_tiled": False,
    }
    return encoding_rows(**(sizes | changes))


def test_encoding_takes_the_larger_of_its_two_stages() -> None:
    clips = {row["memory"]: row["GB"] for row in encoding()}
    assert clips["a clip in the VAE, untiled"] == pytest.approx(23.4 * 2**30 / 1e9)
    # A tile is as large whatever the clip's size is.
    tiled = [encoding(is_tiled=True, shapes=[(73, *size)]) for size in ((480, 848), (704, 1280))]
    assert total_bytes(tiled[0]) == total_bytes(tiled[1]) < total_bytes(encoding())
    captions = [row["memory"] for row in encoding(shapes=[(7, 32, 32)])]
    assert captions == ["captions: the text encoder", "context and fragmentation", "together"]


@pytest.mark.parametrize(
    ("accelerator", "gpus", "ram", "expected"),
    [
        ("auto", [80e9], 64e9, []),
        ("gpu", [80e9, 24e9], 64e9, ["44.0 GB of GPU memory and the GPU has 24.0 GB"]),
        ("auto", [], 64e9, ["there is no CUDA GPU here and trainer.accelerator is auto"]),
        ("cpu", [], 64e9, []),
        ("cpu", [], 32e9, ["about 52.5 GB of RAM per process and the machine has 32.0 GB"]),
        ("auto", [80e9], 8e9, ["about 10.0 GB of RAM per process and the machine has 8.0 GB"]),
    ],
)
def test_comparison_with_the_machine(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, gpus: list, ram: float, expected: list[str]
) -> None:
    monkeypatch.setattr("preflight.memory.gpu_bytes", lambda: gpus)
    monkeypatch.setattr("preflight.memory.ram_bytes", lambda: ram)
    report, rows = Report(), [{"memory": "together", "GB": 44.0}]
    add_memory("training", rows, report, accelerator=accelerator, host=10e9)
    ((_, text),) = report.sections
    assert [line.split(":")[0] for line in text.splitlines()[-2:]] == ["GPU", "RAM"]
    assert len(report.problems) == len(expected)
    for problem, part in zip(report.problems, expected, strict=True):
        assert part in problem and problem.endswith(".")
