"""``python -m musicinfuser.convert``: the authors' files and ours, both ways, offline."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import MochiTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from musicinfuser.adapters.folder import read_folder
from musicinfuser.adapters.official import load_official, save_official
from musicinfuser.convert import main
from musicinfuser.errors import UserError
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.audio_encoders import write_audio_encoder


def convert(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def tensors_and_metadata(path: Path) -> tuple[dict, dict]:
    with safe_open(str(path), "pt") as file:
        return load_file(path), file.metadata()


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_the_authors_adapter_and_back_exactly(golden, tmp_path: Path) -> None:
    convert("from-official", golden.adapter, tmp_path / "folder", "--layers", "1,3")
    assert read_folder(tmp_path / "folder").settings.lora.share_qkv_a
    convert("to-official", tmp_path / "folder", tmp_path / "again.safetensors")
    before, metadata = tensors_and_metadata(golden.adapter)
    after, metadata_after = tensors_and_metadata(tmp_path / "again.safetensors")
    assert_same(after, before)
    assert json.loads(metadata_after["kwargs"]) == json.loads(metadata["kwargs"])
    # Once we wrote it, the file says itself which blocks.
    convert("from-official", tmp_path / "again.safetensors", tmp_path / "third")
    assert read_folder(tmp_path / "third").settings == read_folder(tmp_path / "folder").settings


def test_what_the_authors_adapter_hears(golden, tmp_path: Path) -> None:
    convert("from-official", golden.adapter, tmp_path / "folder", "--layers", "1,3")
    audio = read_folder(tmp_path / "folder").origin.audio
    assert (audio.features, audio.layer, audio.kind) == ("encoder", None, "wav2vec2")
    assert (audio.encoder, audio.rate_hz) == ("facebook/wav2vec2-base-960h", 50.0)
    card = (tmp_path / "folder" / "README.md").read_text()
    said = "the last hidden state of facebook/wav2vec2-base-960h (wav2vec2)"
    assert f"| audio features | {said} |" in card
    encoder = write_audio_encoder(tmp_path / "encoder")
    given = ("--layers", "1,3", "--audio_encoder", encoder)
    convert("from-official", golden.adapter, tmp_path / "own", *given)
    own = read_folder(tmp_path / "own").origin.audio
    assert own.encoder == str(encoder) and own.weights


def test_their_format_cannot_tell_their_code_of_other_features(golden, tmp_path: Path) -> None:
    convert("from-official", golden.adapter, tmp_path / "folder", "--layers", "1,3")
    config = tmp_path / "folder" / "zica" / "config.json"
    settings = json.loads(config.read_text())
    settings["origin"]["audio"]["layer"] = 6
    config.write_text(json.dumps(settings))
    with pytest.warns(UserWarning, match="authors' code takes the last hidden state"):
        convert("to-official", tmp_path / "folder", tmp_path / "again.safetensors")
    convert("from-official", tmp_path / "again.safetensors", tmp_path / "third")
    assert read_folder(tmp_path / "third").origin.audio.layer == 6


def test_a_matrices_that_have_diverged(golden, tmp_path: Path) -> None:
    model = load_official(golden.dit, golden.adapter, golden.arch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.mul_(1 + 1e-4 * sum(map(ord, name)))
    save_official(model, tmp_path / "own.safetensors")
    convert("from-official", tmp_path / "own.safetensors", tmp_path / "folder")
    assert not read_folder(tmp_path / "folder").settings.lora.share_qkv_a
    convert("to-official", tmp_path / "folder", tmp_path / "again.safetensors")
    assert_same(load_file(tmp_path / "again.safetensors"), load_file(tmp_path / "own.safetensors"))


def test_both_converted_parts_compute_what_the_authors_recorded(golden, tmp_path: Path) -> None:
    convert("backbone", golden.dit, tmp_path / "transformer")
    convert("from-official", golden.adapter, tmp_path / "adapter", "--layers", "1,3")
    backbone = MochiTransformer3DModel.from_pretrained(tmp_path / "transformer")
    adapter = read_folder(tmp_path / "adapter")
    model = MusicModel(
        backbone.float(), layers=[1, 3], zica=adapter.settings.zica, lora=adapter.settings.lora,
        audio_width=adapter.settings.audio_width,
    )  # fmt: skip
    missing, unexpected = model.load_state_dict(adapter.tensors, strict=False)
    assert not unexpected and all("lora" not in name and "zica" not in name for name in missing)
    with torch.no_grad():
        out = model(golden.latents, golden.text, golden.timestep, golden.text_mask, golden.audio)
    assert (out - golden.out).norm() / golden.out.norm() < 1e-5


def test_the_backbone_equals_what_training_reads(golden, tmp_path: Path) -> None:
    convert("backbone", golden.dit, tmp_path / "t")
    converted = load_file(tmp_path / "t" / "diffusion_pytorch_model.safetensors")
    model = load_official(golden.dit, golden.adapter, golden.arch)
    expected = {
        n.removeprefix("backbone.").replace(".base_layer.", "."): t
        for n, t in model.state_dict().items()
        if n.startswith("backbone.") and "lora" not in n
    }
    assert_same({n: t.float() for n, t in converted.items()}, expected)
    convert("backbone", golden.dit, tmp_path / "half", "--dtype", "bfloat16")
    half = load_file(tmp_path / "half" / "diffusion_pytorch_model.safetensors")
    assert_same(half, {n: t.bfloat16() for n, t in converted.items()})
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    assert (config["num_layers"], config["num_attention_heads"]) == (4, 4)
    with pytest.raises(ValueError, match="t is there already"):
        convert("backbone", golden.dit, tmp_path / "t")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("blocks.1.mlp_x.w1.weight"), "no tensor 'blocks.1.mlp_x.w1.weight'"),
        (lambda t: t.update(extra=torch.ones(1)), "1 unknown tensors, e.g. 'extra'"),
        (lambda t: t.pop("x_embedder.proj.weight"), "no x_embedder.proj.weight of 4 axes"),
        (
            lambda t: t.update({"blocks.2.attn.qkv_x.weight": torch.ones(9, 96)}),
            r"blocks.2.attn.qkv_x.weight has shape \(9, 96\).*it must be \(96, 96\)",
        ),
    ],
)
def test_what_is_wrong_with_a_backbone(golden, tmp_path: Path, change, said: str) -> None:
    tensors = load_file(golden.dit)
    change(tensors)
    save_file(tensors, tmp_path / "dit.safetensors")
    with pytest.raises(ValueError, match=rf"dit\.safetensors.* {said}|{said}") as error:
        convert("backbone", tmp_path / "dit.safetensors", tmp_path / "t")
    assert str(tmp_path / "dit.safetensors") in str(error.value)
    assert not (tmp_path / "t").exists()


def test_what_is_wrong_with_an_adapter(golden, tmp_path: Path, make_model) -> None:
    tensors, metadata = tensors_and_metadata(golden.adapter)
    with pytest.raises(ValueError, match=r"holds 2 audio blocks .* with --layers"):
        convert("from-official", golden.adapter, tmp_path / "f")
    with pytest.raises(ValueError, match=r"dit\.safetensors is no adapter of the authors"):
        convert("from-official", golden.dit, tmp_path / "f")
    del tensors["audio_projection.projection.2.bias"]
    save_file(tensors, tmp_path / "cut.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=r"cut\.safetensors: .*'audio_projection.*2.bias'"):
        convert("from-official", tmp_path / "cut.safetensors", tmp_path / "f", "--layers", "1,3")
    assert not (tmp_path / "f").exists()

    from musicinfuser.adapters.card import CardFacts
    from musicinfuser.adapters.folder import write_folder
    from tests.sharing.test_folder import adapter_of_model, settings

    zica = ZicaSpec(num_heads=4, positions="rotary")
    model = make_model(zica=zica, lora=LoraSpec(rank=2, alpha=2.0))
    adapter = adapter_of_model(model, settings(model, zica))
    write_folder(tmp_path / "rotary", adapter, facts=CardFacts(), config="")
    with pytest.raises(ValueError, match="zica.positions none only; this adapter has rotary"):
        convert("to-official", tmp_path / "rotary", tmp_path / "out.safetensors")


def test_nothing_is_written_where_something_else_is(golden, tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for target, said in (
        (tmp_path / "notes.txt" / "out.safetensors", "notes.txt cannot be written"),
        (tmp_path / "notes.txt", "notes.txt exists and holds something else; give another target"),
    ):
        for command in ("to-official", "to-comfyui"):
            with pytest.raises(UserError, match=said):
                convert(command, tmp_path, target)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(SystemExit):
        convert("from-official", golden.adapter, tmp_path / "f", "--layers", "a,b")
    assert "'a,b' must be numbers with commas between" in capsys.readouterr().err
    with pytest.raises(UserError, match="is a folder; give a checkpoint file of a training"):
        convert("checkpoint", tmp_path, tmp_path / "f")
    with pytest.raises(UserError, match="is no checkpoint of a training of this program"):
        convert("checkpoint", golden.adapter, tmp_path / "f")
