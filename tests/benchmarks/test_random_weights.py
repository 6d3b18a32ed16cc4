"""Random transformers that are written without being held."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.profiles import backbone, read_profile
from benchmarks.random_parts import wan_index, write_transformer
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from tests import small_wan


@pytest.mark.parametrize(("profile", "family"), [("base", "mochi"), ("wan_5b", "wan_5b")])
def test_written_weights_are_those_that_would_have_been_drawn(
    profile: str, family: str, tmp_path: Path
) -> None:
    found = write_transformer(tmp_path, profile, 3, "small")
    read = build_backbone(BackboneSpec(pretrained=str(tmp_path), subfolder=None, family=family))
    drawn = backbone(read_profile(profile), num_layers=3, size="small")
    assert found["parameters"] == sum(p.numel() for p in drawn.parameters())
    expected = dict(drawn.named_parameters())
    assert expected.keys() == dict(read.named_parameters()).keys()
    for name, parameter in read.named_parameters():
        assert parameter.dtype == expected[name].dtype, name
        assert torch.equal(parameter, expected[name]), name
    assert {torch.bfloat16} < {p.dtype for p in read.parameters()} or profile == "base"


def test_files_are_split_as_diffusers_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_transformer(tmp_path / "whole", "base", 3, "small")
    monkeypatch.setattr("benchmarks.random_parts.LARGEST_FILE", "1MB")
    split = write_transformer(tmp_path / "split", "base", 3, "small")
    index = json.loads(
        (tmp_path / "split/diffusion_pytorch_model.safetensors.index.json").read_text()
    )
    files = {path.name for path in (tmp_path / "split").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == files and len(files) > 2
    assert split["parameters"] == whole["parameters"]
    one, other = (
        build_backbone(BackboneSpec(pretrained=str(tmp_path / name), subfolder=None)).state_dict()
        for name in ("whole", "split")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_index_is_that_of_diffusers_own_pipeline(tmp_path: Path) -> None:
    pipe = small_wan.pipeline(small_wan.FlowMatchEulerDiscreteScheduler())
    pipe.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "model_index.json").read_text())
    assert wan_index(takes_image=False).items() <= written.items()
    assert wan_index(takes_image=True)["expand_timesteps"] is True
