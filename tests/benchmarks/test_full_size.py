"""Wan 2.1 1.3B at full width and depth, and the comparison that its benchmark rests on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.full_size import differences, main, own_pipeline, plain_lora
from benchmarks.processes import PartError
from benchmarks.random_parts import write_media
from musicinfuser.safetensors_files import save_tensors
from tests import small_wan


def test_differences_are_found_to_the_bit() -> None:
    one = {"a": [torch.ones(2), 3], "b": {"c": 1.5}}
    same = {"a": [torch.ones(2), 3], "b": {"c": 1.5}}
    assert differences(one, same, "x") == []
    next_number = torch.nextafter(torch.ones(2), torch.full((2,), 2.0))
    assert differences(one, same | {"a": [next_number, 3]}, "x") == ["x/a/0"]
    assert differences(one, same | {"a": [torch.ones(2).double(), 3.0]}, "x") == ["x/a/0", "x/a/1"]
    assert differences(one, {"a": [torch.ones(2)], "b": {}, "d": 1}, "x") == [
        "x/a/1",
        "x/b/c",
        "x/d",
    ]


@pytest.mark.parametrize("family", ["wan", "wan_5b"])
def test_both_pipelines_are_given_an_adapter(
    family: str, small_parts: Path, media: Path, tmp_path: Path
) -> None:
    parts = small_wan.write_parts(tmp_path / "parts", is_5b=family == "wan_5b")
    shutil.copytree(small_parts / "audio_encoder", parts / "audio_encoder")
    adapter = small_wan.write_adapter(tmp_path / "adapter", small_wan.trained_on(parts, family))
    assert plain_lora(parts, adapter)["tensors"] == 3 * 8 * 2
    song = next((media / "aist").glob("*.mp4"))
    size = {"num_frames": 5, "height": 32, "width": 32}
    picture = None
    if family == "wan_5b":
        write_media(tmp_path / "media")
        picture = tmp_path / "media" / "picture.png"
    assert own_pipeline(parts, adapter, song, size, picture)["shape"] == [1, 5, 3, 32, 32]
    file = adapter / "pytorch_lora_weights.safetensors"
    more = {"transformer.blocks.0.attn1.to_nowhere.lora_A.weight": torch.ones(2, 128)}
    save_tensors(load_file(file) | more, file)
    with pytest.raises(PartError, match=r"1 of 49 differ or are missing"):
        plain_lora(parts, adapter)


@pytest.mark.slow
def test_the_whole_life_of_a_run_at_full_size(tmp_path: Path) -> None:
    """Five minutes, 7 GB of memory, 9 GB of disk."""
    out = tmp_path / "result.json"
    assert main(["--out", str(out), "--folder", str(tmp_path / "life")]) == 0
    parts = json.loads(out.read_text())["details"]["parts"]
    assert parts["random weights"]["parameters"] == 1_418_996_800
    assert parts["resume"]["different"] == [] and parts["resume"]["compared"] > 1000
    assert parts["resume"]["killed_after_steps"] == 2
    assert parts["load_lora_weights of diffusers"]["tensors"] == 30 * 8 * 2
    assert parts["own pipeline"]["shape"][1] == 9
    assert {"export", "predict", "validate"} <= parts.keys()
