"""``model.init_adapter``: what it reads, what it refuses, and the run that starts from it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from musicinfuser.adapters.initial import load_adapter
from musicinfuser.adapters.official import load_official, save_official
from musicinfuser.adapters.settings import AdapterFileError
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.conftest import ROOT
from tests.test_resume import assert_equal

GOLDEN = ROOT / "tests" / "golden" / "official"
SETTINGS = {"layers": [0, 2], "lora": {"rank": 2}}


@pytest.fixture
def make(small_parts: Path):
    def build(**changes) -> MusicModel:
        settings = {
            "layers": [0, 2],
            "zica": ZicaSpec(num_heads=4),
            "lora": LoraSpec(rank=2, alpha=2.0),
            "audio_width": 96,
        }
        backbone = build_backbone(BackboneSpec(pretrained=str(small_parts), dtype="float32"))
        return MusicModel(backbone, **(settings | changes))

    return build


@pytest.fixture
def trained(make) -> MusicModel:
    model = make()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return model


def adapters(model: MusicModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def checkpoint(path: Path, model: MusicModel, **extra) -> Path:
    state = {f"model.{name}": tensor for name, tensor in adapters(model).items()}
    torch.save({"musicinfuser": {"model": SETTINGS}, "state_dict": state} | extra, path)
    return path


@pytest.mark.parametrize("kind", ["checkpoint", "official", "ours", "folder"])
def test_reads_every_format(make, trained: MusicModel, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    if kind == "checkpoint":
        path = checkpoint(tmp_path / "x.ckpt", trained)
    elif kind == "official":
        save_official(trained, path)
    else:
        save_file(adapters(trained), path)
    fresh = make(seed=7)
    load_adapter(path.parent if kind == "folder" else path, fresh, SETTINGS)
    assert_equal(adapters(fresh), adapters(trained))
    assert fresh.trainable_names() == trained.trainable_names()


def test_reads_the_authors_own_file(tmp_path: Path) -> None:
    arch = json.loads((GOLDEN / "arch.json").read_text())
    paths = GOLDEN / "dit.safetensors", GOLDEN / "musicinfuser.safetensors"
    expected = load_official(*paths, arch, share_qkv_a=True)
    model = load_official(*paths, arch, share_qkv_a=True)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    load_adapter(paths[1], model, {})
    assert_equal(adapters(model), adapters(expected))


def test_a_run_that_averaged_is_read_as_its_average(
    make, trained: MusicModel, tmp_path: Path
) -> None:
    average = {f"model.{name}": 2 * tensor for name, tensor in adapters(trained).items()}
    state = {"average": average, "num_updates": 3}
    path = checkpoint(tmp_path / "x.ckpt", trained, callbacks={"AdapterEMA": state})
    fresh = make()
    load_adapter(path, fresh, SETTINGS)
    assert_equal(adapters(fresh), {name: 2 * t for name, t in adapters(trained).items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": LoraSpec(rank=3, alpha=3.0)}, "lora.rank: 2 in the file, 3 in the config"),
        ({"lora": LoraSpec(rank=2, alpha=4.0)}, "lora.alpha: 2.0 in the file, 4.0 in the config"),
        ({"zica": ZicaSpec(num_heads=8)}, "zica.num_heads: 4 in the file, 8 in the config"),
        ({"layers": [0, 1]}, r"layers: \(0, 2\) in the file, \(0, 1\) in the config"),
        ({"lora": None}, "needs LoRA settings to agree; the model has no LoRA"),
    ],
)
def test_an_official_adapter_of_another_model_is_refused(
    make, trained: MusicModel, tmp_path: Path, changes: dict, message: str
) -> None:
    save_official(trained, tmp_path / "x.safetensors")
    with pytest.raises(AdapterFileError, match=message):
        load_adapter(tmp_path / "x.safetensors", make(**changes), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layers": [0]},
            r"0 tensors are missing and 8 unknown \(zica.2.to_k.bias is not in the m",
        ),
        ({"layers": [0, 1, 2]}, "8 tensors are missing and 0 unknown"),
        (
            {"lora": LoraSpec(rank=3, alpha=3.0)},
            r"have another shape, e.g. backbone.*lora_A.*\(2, ",
        ),
    ],
)
def test_other_names_and_shapes_are_refused_and_nothing_is_changed(
    make, trained: MusicModel, tmp_path: Path, changes: dict, message: str
) -> None:
    save_file(adapters(trained), tmp_path / "x.safetensors")
    model = make(**changes)
    before = adapters(model)
    with pytest.raises(AdapterFileError, match=message):
        load_adapter(tmp_path / "x.safetensors", model, SETTINGS)
    assert_equal(adapters(model), before)


def test_tied_matrices_must_be_equal(make, trained: MusicModel, tmp_path: Path) -> None:
    save_file(adapters(trained), tmp_path / "x.safetensors")
    tied = make(lora=LoraSpec(rank=2, alpha=2.0, share_qkv_a=True))
    with pytest.raises(
        AdapterFileError, match="different tensors as .*set lora.share_qkv_a to false"
    ):
        load_adapter(tmp_path / "x.safetensors", tied, SETTINGS)


def test_other_settings_of_a_checkpoint_are_named(make, trained, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt", trained)
    with pytest.raises(AdapterFileError, match=r"other settings \(model.lora.rank: 2 in the check"):
        load_adapter(path, make(), SETTINGS | {"lora": {"rank": 3}})


def test_what_is_not_an_adapter_is_refused(make, tmp_path: Path) -> None:
    model = make()
    (tmp_path / "x.ckpt").write_text("no adapter")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    (tmp_path / "folder").mkdir()
    save_file({"layer.weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    (tmp_path / "broken.safetensors").write_text("no tensors")
    for name, message in {
        "x.ckpt": "is no checkpoint of a training of this program",
        "foreign.ckpt": "is no checkpoint of a training of this program",
        "none.ckpt": "does not exist; a run that is resumed needs none",
        "folder": "holds 0 safetensors files; give the adapter's file",
        "foreign.safetensors": "neither the names of the authors' file nor .* e.g. 'layer.weight'",
        "broken.safetensors": "cannot be read",
    }.items():
        with pytest.raises(AdapterFileError, match=message):
            load_adapter(tmp_path / name, model, SETTINGS)


@pytest.mark.slow
def test_a_run_starts_fresh_from_another_and_a_resumed_one_goes_on(
    run_cli, small_cache: Path, tmp_path: Path
) -> None:
    run_cli("fit", "--trainer.max_steps=3", cache=small_cache, root=tmp_path / "first")
    first = tmp_path / "first" / "checkpoints" / "last.ckpt"
    start = f"--model.init_args.init_adapter={first}"

    def fit(name: str, *arguments: str) -> dict:
        run_cli("fit", start, *arguments, cache=small_cache, root=tmp_path / name)
        return torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)

    # The first step has rate 0: what it saves is what it started from.
    one = fit("one", "--trainer.max_steps=1")
    assert one["global_step"] == 1
    assert_equal(one["state_dict"], torch.load(first, weights_only=True)["state_dict"])
    assert {int(s["step"]) for s in one["optimizer_states"][0]["state"].values()} == {1}
    constant = "--model.init_args.schedule.decay=constant"
    # Resumed: the checkpoint's weights, not the adapter's.
    fit("parted", constant)
    parted = fit("parted", constant, "--trainer.max_steps=3")
    whole = fit("whole", constant, "--trainer.max_steps=3")
    assert_equal(parted["state_dict"], whole["state_dict"])
    assert_equal(parted["optimizer_states"], whole["optimizer_states"])
    # And at full strength for judging without any checkpoint of its own.
    limits = ("--trainer.limit_val_batches=1", "--ckpt_path=null")
    found = [
        run_cli("validate", *limits, *extra, cache=small_cache).trainer.callback_metrics["val/loss"]
        for extra in ((start,), ("--model.init_args.seed=42",), (f"--ckpt_path={first}",))
    ]
    assert found[0] == found[2] != found[1]


def test_the_authors_file_has_the_names_it_is_known_by() -> None:
    names = load_file(GOLDEN / "musicinfuser.safetensors")
    assert any(name.startswith("audio_projection.") for name in names)


def test_another_frame_rate_is_said(make, trained: MusicModel, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt", trained)
    assert load_adapter(path, make(), SETTINGS) == []
    (note,) = load_adapter(path, make(), SETTINGS | {"fps": 20.0})
    assert "learned from videos of 30 frames per second, but this run's have 20; for" in note
