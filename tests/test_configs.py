"""Every shipped config parses, round-trips and runs; base.yaml is built at full size."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from lightning_modules.cli import MusicInfuserCLI
from musicinfuser.clip_size import GEOMETRIES
from musicinfuser.networks.backbones import FAMILIES
from musicinfuser.networks.backbones.wan import DEFAULT_SHIFT
from musicinfuser.networks.work import Work
from preflight.memory import host_bytes, loaded_bytes, total_bytes, training_rows
from preflight.profiles import (
    PROFILES,
    add_profiles,
    block_bytes,
    fitting_profile,
    profile_rows,
    profile_sizes,
)
from preflight.report import Report
from preflight.training import training_sizes
from tests.conftest import ROOT

# Config -> verb and the files it is laid over.
SHIPPED = {
    "base": ("fit", ["base"]),
    "recommended": ("fit", ["base", "recommended"]),
    "small_world/small": ("fit", ["base", "small_world/small"]),
    "small_world/small_wan": ("fit", ["base", "small_world/small", "small_world/small_wan"]),
    "wan_1b": ("fit", ["base", "wan_1b"]),
    "wan_14b": ("fit", ["base", "wan_14b"]),
    "wan_14b_24gb": ("fit", ["base", "wan_14b", "wan_14b_24gb"]),
    "wan_5b": ("fit", ["base", "wan_5b"]),
    "wan_encode": ("predict", ["encode", "wan_encode"]),
    "wan_5b_encode": ("predict", ["encode", "wan_5b_encode"]),
    "encode": ("predict", ["encode"]),
    "caption": ("predict", ["caption"]),
    "adaptability": ("validate", ["adaptability"]),
    "adaptability_wan": ("validate", ["adaptability", "adaptability_wan"]),
    "small_world/adaptability": ("validate", ["adaptability", "small_world/adaptability"]),
    "small_world/encode": ("predict", ["encode", "small_world/encode"]),
    "ddp": ("fit", ["base", "ddp"]),
    "sharded": ("fit", ["base", "ddp", "sharded"]),
    "slurm/slurm": ("fit", ["base", "ddp", "slurm/slurm"]),
    "profiles/80gb": ("fit", ["base", "profiles/80gb"]),
    "profiles/40gb": ("fit", ["base", "profiles/40gb"]),
    "profiles/24gb": ("fit", ["base", "profiles/24gb"]),
    "profiles/wan_24gb": ("fit", ["base", "wan_1b", "profiles/wan_24gb"]),
    "profiles/16gb": ("fit", ["base", "profiles/16gb"]),
    "profiles/8gb": ("fit", ["base", "wan_1b", "profiles/8gb"]),
    "profiles/int8": ("fit", ["base", "profiles/int8"]),
    "profiles/fp8": ("fit", ["base", "wan_1b", "profiles/fp8"]),
    "profiles/nf4": ("fit", ["base", "profiles/nf4"]),
    "loggers/csv": ("fit", ["base", "loggers/csv"]),
    "loggers/wandb": ("fit", ["base", "loggers/wandb"]),
    "benchmark": ("predict", ["base", "benchmark"]),
    **{
        f"control/{name}": ("predict", ["base", f"control/{name}"])
        for name in (
            "longer",
            "tempo",
            "lag",
            "silence",
            "seeds",
            "tracks",
            "group",
            "difficulty",
            "subjects",
            "whole_song",
        )
    },
    "small_world/parts/vae": ("fit", ["small_world/parts/vae"]),
    "small_world/parts/base": ("fit", ["small_world/parts/base"]),
    "small_world/parts/base_wan": (
        "fit",
        ["small_world/parts/base", "small_world/parts/base_wan"],
    ),
    "small_world/parts/audio_encoder": ("fit", ["small_world/parts/audio_encoder"]),
    "small_world/parts/text_encoder": ("fit", ["small_world/parts/text_encoder"]),
}
# Their own tests: tests/sweeps/.
ELSEWHERE = ("ablations/", "sweeps/")
# Not for LightningCLI: read by evaluate.py.
OTHER = {
    "adaptability_metrics",
    "small_world/ablation_metrics",
    "small_world/metrics",
    "small_world/report_metrics",
    "small_world/picture_metrics",
    "small_world/tempo_metrics",
}


def config_arguments(name: str) -> list[str]:
    return [f"--config={ROOT}/configs/{part}.yaml" for part in SHIPPED[name][1]]


def test_every_file_is_known() -> None:
    folder = ROOT / "configs"
    found = {p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")}
    assert {n for n in found if not n.startswith(ELSEWHERE)} == SHIPPED.keys() | OTHER


# Their requests are made in tests/test_control.py; they print as `tempo` does, which says most.
LIKE_TEMPO = [n for n in SHIPPED if n.startswith("control/") and n != "control/tempo"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LIKE_TEMPO else n for n in SHIPPED]
)
def test_prints_a_config_that_parses_to_itself(name: str, tmp_path: Path, capsys) -> None:
    if name in EIGHT_BIT + QUANTISED:
        pytest.importorskip(package_of(name))

    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            MusicInfuserCLI([SHIPPED[name][0], *arguments, "--print_config"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    first = printed(*config_arguments(name))
    (tmp_path / "printed.yaml").write_text(first)
    assert yaml.safe_load(printed(f"--config={tmp_path}/printed.yaml")) == yaml.safe_load(first)
    assert "class_path" in first


# How blocks are run: no option of these changes a number.
PROFILE = {
    f"model.init_args.memory.{name}"
    for name in (
        "gradient_checkpointing",
        "compile_blocks",
        "modulations_on_host",
        "stream_blocks",
        "offload_inputs",
    )
}
EIGHT_BIT = ("profiles/16gb", "profiles/8gb")
QUANTISED = ("profiles/int8", "profiles/fp8", "profiles/nf4")


def package_of(name: str) -> str:
    return "bitsandbytes" if name == "profiles/nf4" else "torchao"


# Overlays and all they set; but for `recommended`, none touches the recipe.
OVERLAYS = {
    "recommended": {
        "model.init_args.zica.positions",
        "model.init_args.audio_resampling",
        "model.init_args.objective.counterfactual.weight",
        "model.init_args.sampling.music_guidance_scale",
    },
    "profiles/80gb": PROFILE,
    "profiles/40gb": PROFILE,
    "profiles/24gb": PROFILE,
    "profiles/wan_24gb": PROFILE
    - {f"model.init_args.memory.{name}" for name in ("compile_blocks", "modulations_on_host")},
    **dict.fromkeys(EIGHT_BIT, PROFILE | {"model.init_args.optimizer.class_path"}),
    **dict.fromkeys(QUANTISED, PROFILE | {"model.init_args.backbone.quantize"}),
    "ddp": {"trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"},
    "sharded": {
        "model.init_args.shard_backbone",
        "data.init_args.max_validation_clips",
        "sample_generation.every_n_steps",
    },
    "slurm/slurm": {"trainer.plugins"},
    "loggers/csv": {"trainer.logger"},
    "loggers/wandb": {"trainer.logger"},
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_set_one_thing(name: str) -> None:
    def keys(node: object, prefix: str) -> set[str]:
        if not isinstance(node, dict) or prefix[:-1] in OVERLAYS[name]:
            return {prefix[:-1]}
        return {key for part, value in node.items() for key in keys(value, f"{prefix}{part}.")}

    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    assert keys(config, "") == OVERLAYS[name]


def test_base_is_the_profile_for_80_gb() -> None:
    base, profile = (
        yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["model"]["init_args"]
        for name in ("base", "profiles/80gb")
    )
    assert base.items() >= profile.items()


@pytest.mark.parametrize(
    ("name", "gigabytes", "frames"),
    [
        *(("profiles/80gb", 52, 73), ("profiles/40gb", 39, 73), ("profiles/24gb", 19, 73)),
        *(("wan_1b", 16, 81), ("wan_14b", 75, 81), ("wan_5b", 38, 121)),
        *(("profiles/wan_24gb", 8, 81), ("wan_14b_24gb", 20, 81), ("profiles/int8", 37, 73)),
        ("profiles/nf4", 34, 73),
    ],
)
def test_configs_take_the_memory_they_say(name: str, gigabytes: int, frames: int) -> None:
    """The estimate that `check` prints, of the model at full size."""
    if name in QUANTISED:
        pytest.importorskip(package_of(name))
    config = config_arguments(name)
    cli = MusicInfuserCLI([*config, "--trainer.accelerator=cpu"], run=False)
    with torch.device("meta"):
        cli.model.configure_model()
    settings = SimpleNamespace(trainer={"devices": 1, "callbacks": None})
    sizes = training_sizes(settings, cli.model, cli.datamodule)
    needed = total_bytes(training_rows(sizes)) / 1e9
    assert needed == pytest.approx(gigabytes, abs=0.5)
    assert (
        f"# About {gigabytes} GB at {frames} frames"
        in (ROOT / "configs" / f"{name}.yaml").read_text()
    )


def test_profiles_are_what_check_counts_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """And `check` names the fastest that fits; of Wan only those that Wan can run."""
    found = {path.stem for path in (ROOT / "configs" / "profiles").glob("*.yaml")}
    assert found == PROFILES.keys()
    for name, counted in PROFILES.items():
        config = yaml.safe_load((ROOT / "configs" / "profiles" / f"{name}.yaml").read_text())
        options = config["model"]["init_args"]
        memory = {key: value for key, value in options["memory"].items() if value}
        memory.pop("compile_blocks", None)
        expected = {key: value for key, value in counted.items() if value}
        assert ("optimizer" in options) == (expected.pop("optimizer_bytes", None) is not None)
        assert options.get("backbone", {}).get("quantize") == expected.pop("quantize", None)
        assert memory == expected, name
    rows, host = {}, {}
    for name in ("base", "wan_1b"):
        cli = MusicInfuserCLI([*config_arguments(name), "--trainer.accelerator=cpu"], run=False)
        with torch.device("meta"):
            cli.model.configure_model()
        settings = SimpleNamespace(trainer={"devices": 1, "callbacks": None})
        sizes = training_sizes(settings, cli.model, cli.datamodule)
        data = cli.datamodule
        clip = (data.num_frames, data.height, data.width)
        work = Work.of(cli.model.adapted, *clip, text_tokens=256)
        rows[name] = profile_rows(cli.model.adapted, sizes, work)
        held = block_bytes(cli.model.adapted)
        host[name] = {
            profile: host_bytes(
                weights=loaded_bytes(profile_sizes(cli.model.adapted, sizes, profile, held)),
                num_workers=data.num_workers,
            )
            for profile in PROFILES
        }
    mochi, wan = ({row["profile"]: row for row in rows[name]} for name in rows)
    gpu = {name: round(float(row["GB on the GPU"]), 1) for name, row in mochi.items()}
    assert gpu == {
        "80gb": 52.4, "40gb": 39.0, "24gb": 19.4, "16gb": 15.0, "int8": 36.9, "fp8": 36.9,
        "nf4": 33.8,
    }  # fmt: skip
    assert (mochi["80gb"]["TFLOP per step"], mochi["24gb"]["TFLOP per step"]) == (1644, 1902)
    assert float(mochi["24gb"]["GB in host memory"]) == pytest.approx(26, abs=0.1)
    assert {n: round(float(r["GB on the GPU"]), 1) for n, r in wan.items()} == {
        "80gb": 20.5, "wan_24gb": 8.3, "8gb": 7.4, "int8": 11.9, "fp8": 11.9,
        "nf4": 11.3,
    }  # fmt: skip

    def fitting(name: str, gpu: float, ram: float = 64) -> str | None:
        return fitting_profile(rows[name], host[name], gpu=gpu * 1e9, ram=ram * 1e9)

    sizes_of_gpus = (80, 47, 24, 17, 12)
    assert [fitting("base", gb) for gb in sizes_of_gpus] == ["80gb", "40gb", "24gb", "16gb", None]
    # A profile's own optimizer goes with its file.
    monkeypatch.setattr("preflight.memory.gpu_bytes", lambda: [12 * 10**9])
    of_8gb = replace(sizes, optimizer_bytes=2.1)
    reports = [Report(), Report()]
    for report, own, files in zip(
        reports, (sizes, of_8gb), ([], ["configs/profiles/8gb.yaml"]), strict=True
    ):
        add_profiles(cli.model.adapted, own, work, report, 1, configs=files, host_of=lambda _: 0.0)
    assert reports[0].sections == reports[1].sections != []
    assert (fitting("wan_1b", 12), fitting("wan_1b", 8)) == ("wan_24gb", "8gb")
    # A host that has no memory to stream from.
    assert (fitting("base", 38, ram=28), fitting("wan_1b", 12, ram=8)) == ("int8", "int8")
    assert fitting("base", 35, ram=28) == "nf4"


@pytest.mark.parametrize(
    ("name", "second"),
    [("csv", {"name": "csv", "version": None}), ("wandb", {"project": "musicinfuser"})],
)
def test_a_second_logger_stands_beside_tensorboard(name: str, second: dict, capsys) -> None:
    with pytest.raises(SystemExit):
        MusicInfuserCLI(["fit", *config_arguments(f"loggers/{name}"), "--print_config"])
    first, other = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
    base = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text())["trainer"]["logger"]
    assert first["class_path"] == base["class_path"]
    assert (first["init_args"]["name"], first["init_args"]["version"]) == ("logs", "")
    assert other["init_args"]["save_dir"] == "runs/base"
    assert other["init_args"].items() >= second.items()


def test_base_holds_the_numbers_of_the_paper() -> None:
    config = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text())
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert config["trainer"]["max_steps"] == 4000
    assert (model["lora"]["rank"], model["lora"]["streams"]) == (64, "both")
    assert float(model["optimizer"]["init_args"]["lr"]) == 1e-4
    assert model["schedule"]["init_args"]["warmup_steps"] == 200
    assert (model["sampling"]["num_steps"], model["sampling"]["guidance_scale"]) == (64, 6.0)
    assert config["beta_annealing"]["initial"] == 3.0
    assert config["beta_annealing"]["half_life_steps"] == 200
    assert (data["num_frames"], data["height"], data["width"]) == (73, 480, 848)
    assert data["ratio"] == {"aist": 1, "youtube": 1}
    assert (data["caption_dropout"], data["base_prompt_probability"]) == (0.1, 0.2)


def test_unknown_key_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        MusicInfuserCLI(["fit", *config_arguments("base"), "--model.init_args.rnak=3"])
    assert "rnak" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_from_any_folder(tmp_path: Path) -> None:
    """train.py needs nothing of the folder it is started in."""
    command = [sys.executable, str(ROOT / "train.py"), "fit", *config_arguments("base")]
    done = subprocess.run([*command, "--print_config"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", ["wan_1b", "wan_14b", "wan_5b"])
def test_configs_of_wan_say_what_the_pipeline_means_by_default(name: str) -> None:
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    model, data = (config[group]["init_args"] for group in ("model", "data"))
    kind = FAMILIES[model["backbone"]["family"]]
    usual = kind.usual_of(kind.published[model["backbone"]["pretrained"]])
    sampling = model["sampling"]
    assert (data["num_frames"], data["height"], data["width"]) == (
        usual.num_frames, usual.height, usual.width,
    )  # fmt: skip
    for key in ("num_steps", "guidance_scale", "negative_prompt"):
        assert sampling[key] == getattr(usual, key), key
    assert sampling["shift"] == (usual.shift or DEFAULT_SHIFT)
    assert data["fps"] == GEOMETRIES[kind.family].fps
    assert sampling["window_frames"] == usual.num_frames
    assert model["encoders"]["max_text_tokens"] == usual.text_tokens
