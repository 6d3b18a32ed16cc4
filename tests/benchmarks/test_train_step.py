"""A measured step is the recipe's step; sampling and the VAE run at a small size."""

import argparse
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import device, sample, train_step, vae
from benchmarks.device import kernels_of, kind_of
from benchmarks.profiles import read_profile
from benchmarks.random_model import clip_for, random_model
from benchmarks.report import spread
from benchmarks.stock import stock_transformer, stock_velocity
from benchmarks.train_step import TrainingStep, check_variant, optimizer_of

CPU = torch.device("cpu")
# Frames that every family takes.
SIZES = argparse.Namespace(frames=13, height=32, width=32, text_tokens=5)
SMALL = ["--size", "small", "--frames", "7", "--height", "32", "--width", "32", "--device", "cpu"]


def result(path: Path) -> dict:
    found = json.loads(path.read_text())
    found["by_name"] = {figure["what"]: figure for figure in found["figures"]}
    return found


def test_variants_take_turns_and_agree(tmp_path: Path) -> None:
    variants = ["full+eager", "none+eager", "stock"]
    out = tmp_path / "step.json"
    train_step.main(
        ["--out", str(out), *SMALL, "--layers", "2", "--variants", ",".join(variants),
         "--steps", "1", "--warm_up", "1"]
    )  # fmt: skip
    found = result(out)
    for variant in variants:
        step = found["by_name"][f"{variant}: step, median"]
        assert step["value"] > step["limit"] > 0
        assert found["by_name"][f"{variant}: finite gradients"]["value"] == 1
        assert len(found["details"]["variants"][variant]["step_s"]) == 1
    attention = [found["details"]["variants"][v]["attention"] for v in variants]
    forward = [sum(n for name, n in a.items() if "backward" not in name) for a in attention]
    # Two blocks, one with audio, and the pooler of the text, which is not recomputed.
    assert forward[:2] == [3 + 3 + 1, 3 + 1]
    # The same without audio.
    assert forward[2] == 2 + 2 + 1
    assert found["machine"]["packages"]["torch"]


@pytest.mark.parametrize("profile", ["base", "wan_1b"])
def test_a_step_trains_adapters_only_and_every_way_gives_the_same_loss(profile: str) -> None:
    config = read_profile(profile)
    model = random_model(config, CPU, num_layers=3, size="small", compile_blocks=False)
    clip = clip_for(model, SIZES, CPU)
    losses = {}
    step = TrainingStep(model, clip, config, CPU)
    for variant in ("full+eager", "attention+eager", "none+eager", "stock"):
        step = TrainingStep(model, clip, config, CPU)
        step.use(variant)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses[variant] = step().item()
        assert step.gradients_are_finite()
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        if variant == "stock":
            trained = {name for name in trained if "lora" in name}
        # Nobody sees what the last block's text asks for.
        assert changed == {n for n in trained if "blocks.2.attn1.add_q_proj.lora" not in n}
        for name, parameter in model.named_parameters():
            parameter.data.copy_(before[name])
            parameter.grad = None
    values = list(losses.values())
    assert values[:3] == [values[0]] * 3
    assert not step.gradients_are_finite()


@pytest.mark.parametrize("profile", ["base", "wan_1b"])
def test_stock_is_our_model_without_audio(profile: str) -> None:
    config = read_profile(profile)
    config["model"]["init_args"]["backbone"]["dtype"] = "float32"
    model = random_model(config, CPU, num_layers=3, size="small", compile_blocks=False)
    clip, stock = clip_for(model, SIZES, CPU), stock_transformer(model)
    own = dict(model.backbone.named_parameters())
    assert all(p is own[name] for name, p in stock.named_parameters())
    timestep = model.timestep(torch.tensor([0.4]))
    latents, text = clip.latent_mean.float(), clip.text.float()
    ours = model(latents, text, timestep, text_lengths=(text.shape[1],))
    tokens = model.kind.usual.text_tokens
    theirs = stock_velocity(stock, latents, text, timestep, text_tokens=tokens)
    # Up to the sign that the base was trained to predict.
    sign = -1.0 if (ours * theirs).sum() < 0 else 1.0
    torch.testing.assert_close(sign * theirs, ours, rtol=0, atol=1e-6)
    streamed = random_model(read_profile("24gb"), CPU, num_layers=1, size="small")
    with pytest.raises(ValueError, match="all weights on the device"):
        stock_transformer(streamed)


def test_what_is_done_in_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant hangs: the others have what their warm-up took."""
    use = TrainingStep.use

    def slow(self: TrainingStep, variant: str) -> None:
        use(self, variant)
        if variant == "none+eager":
            time.sleep(600)

    monkeypatch.setattr(TrainingStep, "use", slow)
    out = tmp_path / "step.json"
    began = time.perf_counter()
    code = train_step.main(
        ["--out", str(out), *SMALL, "--layers", "2", "--variants", "full+eager,none+eager",
         "--steps", "1", "--warm_up", "2", "--seconds", "15"]
    )  # fmt: skip
    assert code == 1 and time.perf_counter() - began < 60
    found = result(out)
    assert found["details"]["failed"] == {"none+eager": "no step was done within 15 s"}
    assert len(found["details"]["variants"]["full+eager"]["step_s"]) == 1


def test_the_optimizer_is_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = read_profile(), [torch.nn.Parameter(torch.zeros(2))]
    assert type(optimizer_of(config, weights)) is torch.optim.AdamW
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ValueError, match=r"AdamW8bit is not installed here .* install torchao"):
        optimizer_of(read_profile("16gb"), weights)


def test_a_variant_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler() -> None:
        raise TypeError("an old torch")

    monkeypatch.setattr("musicinfuser.networks.backbones.mochi_block.compiled_run", no_compiler)
    out = tmp_path / "step.json"
    code = train_step.main(
        ["--out", str(out), *SMALL, "--layers", "1", "--profile", "24gb", "--steps", "1",
         "--variants", "profile,full+eager,attention+eager", "--warm_up", "1", "--no_profile",
         "--memory_cap_gib", "22"]
    )  # fmt: skip
    found = result(out)
    failed = found["details"]["failed"]
    assert code == 1 and failed.keys() == {"profile", "attention+eager"}
    assert found["by_name"]["profile"]["note"] == failed["profile"] == "TypeError: an old torch"
    assert "gradient_checkpointing is attention, set it to full" in failed["attention+eager"]
    assert found["by_name"]["full+eager: finite gradients"]["value"] == 1


def test_words_of_variants_are_checked() -> None:
    check_variant("profile+eager")
    with pytest.raises(ValueError, match="'fast' in --variants"):
        check_variant("full+fast")
    with pytest.raises(ValueError, match="or stock alone"):
        check_variant("stock+eager")


def test_sampling_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "sample.json"
    sample.main(["--out", str(out), *SMALL, "--layers", "2", "--steps", "3", "--runs", "1",
                 "--no-compile", "--no_profile", "--profile", "24gb"])  # fmt: skip
    found = result(out)["by_name"]
    assert found["finite latents"]["value"] == 1
    assert found["per step"]["value"] == pytest.approx(found["3 steps, best of 1"]["value"] / 3)
    assert found["64 steps, by the time per step"]["ratio"] > 1


@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_both_halves_of_the_vae_are_timed(tmp_path: Path, family: str) -> None:
    out = tmp_path / "vae.json"
    size = [*SMALL[:2], "--frames", "13", *SMALL[4:]]
    vae.main(["--out", str(out), *size, "--runs", "1", "--family", family])
    found = result(out)["by_name"]
    assert {f"{half}, {how}" for half in ("encode", "decode") for how in ("whole", "in tiles")} <= (
        found.keys()
    )
    assert all(figure["limit"] > 0 for figure in found.values())


def test_the_device_has_rates(tmp_path: Path) -> None:
    out = tmp_path / "device.json"
    device.main(["--out", str(out), "--device", "cpu", "--repeats", "1"])
    assert len(result(out)["figures"]) == 4
    assert all(figure["value"] > 0 for figure in result(out)["figures"])


def test_kernels_are_told_apart() -> None:
    query = torch.randn(1, 2, 16, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    found = kernels_of(lambda: (attend(query, query, query), query.sum().item()), CPU)
    assert sum(found["attention"].values()) == 1
    assert found["waits"] == {"_local_scalar_dense": 1}
    names = {
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop": "attention",
        "void flash::flash_bwd_dq_dk_dv_loop": "attention",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80": "attention",
        "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNN": "products",
        "ampere_bf16_s16816gemm_bf16_128x128": "products",
        "Memcpy HtoD (Pinned -> Device)": "copies",
        "triton_poi_fused_add_mul_0": "the rest",
    }
    assert {name: kind_of(name) for name in names} == names


def test_few_values_have_a_largest_and_many_a_percentile() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median_s": 2.0, "p90_s": 3.0}
    assert spread([float(i) for i in range(11)]) == {"median_s": 5.0, "p90_s": 9.0}


@pytest.mark.gpu
def test_a_small_step_on_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    train_step.main(
        ["--out", str(out), *SMALL[:-1], "cuda", "--layers", "2", "--steps", "2", "--variants",
         "attention+compiled,full+eager", "--warm_up", "2"]
    )  # fmt: skip
    found = result(out)
    assert found["details"]["graph_breaks"] == 0
    for variant in found["details"]["variants"].values():
        assert variant["finite"] and variant["peak_allocated"] > 0 and variant["attention_kernels"]
