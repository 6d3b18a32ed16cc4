import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.safetensors_files import StoredTensor, WeightsFileError, save_tensors
from preflight.report import Report
from preflight.weights import (
    UNUSED,
    CheckedPart,
    backbone_parts,
    check_audio_packages,
    check_companions,
    check_parts,
    differences,
    encoder_parts,
    weights_files,
)
from tests.audio_encoders import KINDS, write_audio_encoder


def stored(model: nn.Module, prefix: str = "") -> dict[str, StoredTensor]:
    return {
        prefix + name: StoredTensor("F32", tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def audio() -> Wav2Vec2Model:
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    with torch.device("meta"):
        return Wav2Vec2Model(config)


def test_equal_names_and_shapes() -> None:
    model = nn.Linear(3, 2)
    assert differences("", model, stored(model)) == []


def test_what_differs_is_counted_and_named() -> None:
    model, other = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(4, 2))
    found = stored(other) | {"head": StoredTensor("F32", (1,))}
    assert differences("", model, found) == [
        "2 tensors missing, e.g. 1.bias,",
        "1 unknown tensor, e.g. head,",
        "1 tensor of another shape, e.g. 0.weight (2, 4), not (2, 3),",
    ]


def test_the_published_file_of_wav2vec_is_as_expected(audio: Wav2Vec2Model) -> None:
    """With a head for letters, names of the old weight norm, and without the mask's vector."""
    found = stored(audio, "wav2vec2.") | {"lm_head.weight": StoredTensor("F32", (32, 32))}
    del found["wav2vec2.masked_spec_embed"]
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = "wav2vec2.encoder.pos_conv_embed.conv."
        found[f"{name}{old}"] = found.pop(f"{name}parametrizations.weight.{new}")
    assert differences("wav2vec2.", audio, found) == []
    del found["wav2vec2.feature_projection.layer_norm.bias"]
    (sentence,) = differences("wav2vec2.", audio, found)
    assert sentence == "1 tensor missing, e.g. feature_projection.layer_norm.bias,"


def test_all_parts_of_a_folder(small_parts: Path) -> None:
    report = Report()
    encoders = EncodersSpec(
        mochi=str(small_parts), audio=str(small_parts), audio_subfolder="audio_encoder"
    )
    (transformer,) = backbone_parts(BackboneSpec(pretrained=str(small_parts)))
    assert transformer is not None
    checked, rows = check_parts([transformer, *encoder_parts(encoders)], report)
    assert report.problems == []
    assert list(checked) == ["transformer", "vae", "text_encoder", "audio_encoder"]
    for row, part in zip(rows, checked.values(), strict=True):
        assert row["names and shapes"] == "as expected" and row["type"] == "F32"
        named = part.skeleton.named_parameters()
        assert all(p.is_meta for name, p in named if name not in UNUSED)
        assert row["GB"] == pytest.approx(4e-9 * row["parameters"])
        assert 0 < row["tensors"] <= len(part.skeleton.state_dict())


def test_random_weights_are_no_part() -> None:
    assert backbone_parts(BackboneSpec(config="some.json")) == []


def test_a_hub_id_that_is_not_here() -> None:
    report = Report()
    parts = encoder_parts(EncodersSpec(mochi="nobody/mochi", audio="nobody/wav2vec2"))
    assert check_parts(parts, report, may_be_absent=True)[0] == {} and not report.problems
    check_parts(parts[:1], report)
    (problem,) = report.problems
    assert problem.startswith("vae: nobody/mochi is not on this machine")
    assert "Download it once" in problem


@pytest.fixture
def vae(small_parts: Path, tmp_path: Path) -> Path:
    """A copy of the VAE alone."""
    folder = tmp_path / "parts" / "vae"
    folder.mkdir(parents=True)
    for path in (small_parts / "vae").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def problems(folder: Path) -> list[str]:
    report = Report()
    part = encoder_parts(EncodersSpec(mochi=str(folder.parent)))[0]
    check_parts([part], report)
    return report.problems


def test_a_config_that_is_gone_or_broken(vae: Path) -> None:
    (vae / "config.json").write_text("{")
    assert "config.json, line 1: not JSON" in problems(vae)[0]
    (vae / "config.json").unlink()
    assert "config.json cannot be read" in problems(vae)[0]


def test_no_weights(vae: Path) -> None:
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    assert "holds no weights: neither diffusion_pytorch_model.safetensors nor" in problems(vae)[0]


def test_a_type_that_is_no_float(vae: Path) -> None:
    path = vae / "diffusion_pytorch_model.safetensors"
    save_tensors({name: t.to(torch.int8) for name, t in load_file(path).items()}, path)
    (problem,) = problems(vae)
    assert "holds weights of type I8; give them in bf16, fp16 or fp32." in problem


def test_weights_in_several_files(vae: Path) -> None:
    whole = vae / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, half in halves.items():
        save_tensors({name: tensors[name] for name in half}, vae / file)
    index = {"weight_map": {name: file for file, half in halves.items() for name in half}}
    whole.unlink()
    (vae / f"{whole.name}.index.json").write_text(json.dumps(index))
    assert problems(vae) == []
    (vae / "b.safetensors").unlink()
    first, second = problems(vae)
    assert "b.safetensors cannot be read" in first
    assert f"vae: {len(names) // 2} tensors missing" in second


@pytest.mark.parametrize("kind", KINDS)
def test_every_encoder_that_encode_accepts(tmp_path: Path, kind: str) -> None:
    encoders = EncodersSpec(
        audio=str(write_audio_encoder(tmp_path / "encoder", kind)), audio_layer=3
    )
    report = Report()
    checked, (row,) = check_parts(encoder_parts(encoders)[2:], report)
    assert report.problems == [] and row["names and shapes"] == "as expected"
    assert checked["audio_encoder"].config["hidden_size"] == 96
    tensors = load_file(tmp_path / "encoder" / "model.safetensors")
    name = next(name for name in tensors if name.endswith("feature_projection.layer_norm.bias"))
    del tensors[name]
    save_tensors(tensors, tmp_path / "encoder" / "model.safetensors")
    check_parts(encoder_parts(encoders)[2:], report)
    (problem,) = report.problems
    assert "1 tensor missing, e.g. feature_projection.layer_norm.bias, in" in problem


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-bert"])
def test_encoders_with_a_head_for_beats(tmp_path: Path, kind: str) -> None:
    """The head is looked at where it is the features, and left aside where it is not."""
    source = str(write_audio_encoder(tmp_path / "encoder", kind, head=True))
    path = tmp_path / "encoder" / "model.safetensors"
    beats = EncodersSpec(audio=source, audio_layer="beats")
    both = EncodersSpec(
        audio_features=[
            {"features": "encoder", "source": source, "layer": layer} for layer in ("beats", 1)
        ]
    )
    for spec in (beats, both):
        report = Report()
        _, rows = check_parts(encoder_parts(spec)[2:], report)
        assert report.problems == []
        assert {row["names and shapes"] for row in rows} == {"as expected"}
    tensors = load_file(path)
    del tensors["classifier.bias"]
    save_tensors(tensors, path)
    check_parts(encoder_parts(both)[2:], report)
    (problem,) = report.problems
    assert problem.startswith("audio_encoder: 1 tensor missing, e.g. classifier.bias, in")


def test_an_encoder_without_the_head_for_beats(tmp_path: Path) -> None:
    report = Report()
    source = str(write_audio_encoder(tmp_path / "encoder"))
    check_parts(encoder_parts(EncodersSpec(audio=source, audio_layer="beats"))[2:], report)
    (problem,) = report.problems
    assert f"{source} has no head for positions in beat" in problem


def test_what_encode_refuses_is_refused(small_parts: Path) -> None:
    def found(subfolder: str, **changes) -> str:
        report = Report()
        spec = EncodersSpec(audio=str(small_parts), audio_subfolder=subfolder, **changes)
        check_parts(encoder_parts(spec)[2:], report)
        (problem,) = report.problems
        return problem

    assert "takes input_ids, no waveforms; give a wav2vec 2.0" in found("text_encoder")
    assert "audio_layer is 4, but" in found("audio_encoder", audio_layer=4)
    assert "names the model_type None, which transformers does not know" in found("transformer")
    # Spectrograms need no encoder.
    assert len(encoder_parts(EncodersSpec(audio="/no/such", audio_features="log_mel"))) == 2


def test_what_encoders_need_besides_their_weights(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("text_encoder", "audio_encoder", "tokenizer")}
    for folder in folders.values():
        folder.mkdir()
    parts = {
        name: CheckedPart(folders[name], {}, nn.Identity())
        for name in ("text_encoder", "audio_encoder")
    }
    (folders["text_encoder"] / "tokenizer.json").touch()  # it belongs beside

    def problems() -> list[str]:
        report = Report()
        check_companions(parts, report)
        return [problem.split(" holds")[0] for problem in report.problems]

    assert problems() == [
        f"tokenizer: {folders['tokenizer']}", f"audio_encoder: {folders['audio_encoder']}"
    ]  # fmt: skip
    (folders["tokenizer"] / "spiece.model").touch()
    (folders["audio_encoder"] / "preprocessor_config.json").touch()
    assert problems() == []


def test_files_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match="neither model.safetensors nor model.safetensors.i"):
        weights_files(tmp_path, "model")
    (tmp_path / "model.safetensors").touch()
    assert weights_files(tmp_path, "model") == [tmp_path / "model.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "b", "y": "a", "z": "b"}}')
    assert weights_files(tmp_path, "model") == [tmp_path / "a", tmp_path / "b"]
    index.write_text("[]")
    with pytest.raises(WeightsFileError, match="is not an index of weights"):
        weights_files(tmp_path, "model")


def test_a_package_that_an_audio_encoder_needs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(source: str) -> list[str]:
        report = Report()
        check_audio_packages(EncodersSpec(audio=source, audio_features="muq"), report)
        return report.problems

    monkeypatch.setattr("musicinfuser.networks.muq.find_spec", lambda name: None)
    assert found("OpenMuQ/MuQ") == [
        "encoders.audio_features: muq needs the package muq; pip install muq."
    ]
    monkeypatch.setattr("musicinfuser.networks.muq.find_spec", lambda name: name)
    assert found("OpenMuQ/MuQ") == []
    (problem,) = found(f"{tmp_path}/none")
    assert f"{tmp_path}/none does not exist" in problem
