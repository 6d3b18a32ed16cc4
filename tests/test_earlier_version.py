"""What version 0 wrote is read as before: a checkpoint, an exported adapter and a cache.

`tests/golden/version_0` holds a training of two steps of that version: the settings of
tests/tiny.yaml on the media of `tests.conftest`, encoded and trained with the random parts of
`write_small_parts`.
"""

import shutil
from pathlib import Path

import pytest
import torch

from musicinfuser import MusicInfuserPipeline
from musicinfuser.adapters.folder import read_folder
from tests.conftest import ROOT, cli_arguments
from train import main

VERSION_0 = ROOT / "tests" / "golden" / "version_0"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    shutil.copytree(VERSION_0, tmp_path / "earlier")
    return tmp_path / "earlier"


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_a_run_goes_on_to_the_bit(earlier: Path, small_parts: Path, tmp_path: Path) -> None:
    """To the bit where this machine computes the first half as the one that made it did."""

    def fit(root: Path, num_steps: int = 4) -> dict:
        options = [f"--trainer.max_steps={num_steps}", "--sample_generation.every_n_steps=0"]
        cache = earlier / "cache"
        main(cli_arguments("fit", *options, parts=small_parts, cache=cache, root=root))
        return load(root / "checkpoints" / "last.ckpt")

    def numbers(checkpoint: dict) -> list[torch.Tensor]:
        moments = checkpoint["optimizer_states"][0]["state"].values()
        return [*checkpoint["state_dict"].values(), *(t for m in moments for t in m.values())]

    first = load(earlier / "run" / "checkpoints" / "last.ckpt")
    here = numbers(fit(tmp_path / "first", 2))
    is_alike = all(map(torch.equal, here, numbers(first)))
    resumed, straight = fit(earlier / "run"), fit(tmp_path / "straight")
    assert resumed["global_step"] == straight["global_step"] == 4
    assert resumed["state_dict"].keys() == straight["state_dict"].keys()
    limits = {"rtol": 0, "atol": 0 if is_alike else 2e-4}
    torch.testing.assert_close(numbers(resumed), numbers(straight), **limits)
    # The second half did change the weights by more than that.
    assert max((a - b).abs().max() for a, b in zip(numbers(resumed), here, strict=True)) > 1e-3


def test_an_exported_adapter_is_its_checkpoint(earlier: Path, small_parts: Path) -> None:
    adapter = read_folder(earlier / "run" / "adapter")
    state = load(earlier / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert {f"model.{name}" for name in adapter.tensors} == state.keys()
    for name, tensor in adapter.tensors.items():
        assert torch.equal(tensor, state[f"model.{name}"]), name
    pipe = MusicInfuserPipeline.from_pretrained(
        str(small_parts), adapter=str(earlier / "run" / "adapter")
    )
    music = pipe.zica.state_dict()
    assert music and all(torch.equal(t, state[f"model.{name}"]) for name, t in music.items())


def test_it_is_validated_on_its_cache(earlier: Path, small_parts: Path, capsys) -> None:
    arguments = ["--trainer.limit_val_batches=1", "--data.init_args.validation_batch_size=2"]
    main(
        cli_arguments(
            "validate",
            *arguments,
            parts=small_parts,
            cache=earlier / "cache",
            root=earlier / "run",
        )
    )
    assert "val/music_gap" in capsys.readouterr().out
