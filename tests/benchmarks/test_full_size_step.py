"""A training step on weights that are mapped from files."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.full_size_step import main, mapped_model
from benchmarks.random_parts import write_transformer

SMALL = ["--size", "small", "--layers", "3", "--height", "64", "--width", "64"]


@pytest.mark.parametrize(("profile", "frames"), [("base", 7), ("wan_5b", 5)])
def test_a_step_gives_every_trained_tensor_a_gradient(
    profile: str, frames: int, tmp_path: Path
) -> None:
    out, folder = tmp_path / "step.json", tmp_path / "weights"
    options = ["--out", str(out), "--folder", str(folder), "--profile", profile, *SMALL]
    assert main([*options, "--frames", str(frames)]) == 0
    result = json.loads(out.read_text())
    values = {figure["what"]: figure["value"] for figure in result["figures"]}
    step = result["details"]["step"]
    assert step["zica_after"] == [1] and step["finite"] == step["tensors"] > 50
    # Nobody sees what the last block of Mochi asks of its text.
    assert step["tensors"] - step["not_zero"] == (2 if profile == "base" else 0)
    assert values["frozen tensors with a gradient"] == 0
    written = result["details"]["written"]["parameters"]
    assert values["frozen weights"] == written and values["trained weights"] < written


def test_frozen_weights_stay_in_their_file(tmp_path: Path) -> None:
    write_transformer(tmp_path, "base", 3, "small")
    model = mapped_model(tmp_path, "base", rank=2)
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("only Linux says what is mapped")
    ranges = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in maps.read_text().splitlines() if str(tmp_path) in line
    ]  # fmt: skip
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert len(frozen) > 50 and ranges
    for parameter in frozen:
        assert any(first <= parameter.data_ptr() < last for first, last in ranges)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
