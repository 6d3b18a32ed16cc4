"""A measured step is the recipe's step; sampling and the VAE run at a small size."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import device, sample, train_step, vae
from benchmarks.device import kernels_of, kind_of
from benchmarks.profiles import read_profile
from benchmarks.random_model import random_clip, random_model
from benchmarks.report import spread
from benchmarks.train_step import TrainingStep, check_variant

CPU = torch.device("cpu")
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
    assert found["machine"]["packages"]["torch"]


def test_a_step_trains_adapters_only_and_every_way_gives_the_same_loss() -> None:
    config = read_profile()
    model = random_model(config, CPU, num_layers=2, size="small", compile_blocks=False)
    clip = random_clip(7, 32, 32, text_tokens=5, text_width=64, audio_width=96)
    losses = {}
    for variant in ("full+eager", "attention+eager", "none+eager", "stock"):
        step = TrainingStep(model, clip, config, CPU)
        step.use(variant)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses[variant] = step().item()
        assert step.gradients_are_finite()
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        # Nobody sees what the last block's text asks for.
        unseen = {n for n in before if "blocks.1.attn1.add_q_proj.lora" in n}
        assert changed == {n for n, p in model.named_parameters() if p.requires_grad} - unseen
        for name, parameter in model.named_parameters():
            parameter.data.copy_(before[name])
            parameter.grad = None
    values = list(losses.values())
    assert values[:3] == [values[0]] * 3
    assert values[3] == pytest.approx(values[0], rel=1e-3)
    assert not step.gradients_are_finite()


def test_a_variant_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler() -> None:
        raise TypeError("an old torch")

    monkeypatch.setattr("benchmarks.train_step.compiled_run", no_compiler)
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


def test_sampling_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "sample.json"
    sample.main(["--out", str(out), *SMALL, "--layers", "2", "--steps", "3", "--runs", "1",
                 "--no-compile", "--no_profile", "--profile", "24gb"])  # fmt: skip
    found = result(out)["by_name"]
    assert found["finite latents"]["value"] == 1
    assert found["per step"]["value"] == pytest.approx(found["3 steps, best of 1"]["value"] / 3)
    assert found["64 steps, by the time per step"]["ratio"] > 1


def test_both_halves_of_the_vae_are_timed(tmp_path: Path) -> None:
    out = tmp_path / "vae.json"
    vae.main(["--out", str(out), *SMALL, "--runs", "1"])
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
