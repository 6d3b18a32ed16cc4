"""No file with weights runs code: every reader refuses a pickle that would."""

import ast
import io
from pathlib import Path

import pytest
import torch

from callbacks.checkpoint_files import AtomicCheckpointIO, newest_checkpoint
from dance_eval.metrics.aesthetic_quality import convert_head
from musicinfuser.adapters.official import read_official_adapter
from musicinfuser.adapters.settings import adapter_of_checkpoint
from musicinfuser.diffusion.sampler import Euler
from musicinfuser.errors import UserError
from musicinfuser.generation import LatentCheckpoint
from musicinfuser.media.latents import caption_path, read_caption, read_clip, read_clip_header
from musicinfuser.networks.weights_fingerprint import mapped_weights
from preflight.training import read_checkpoint
from tests.conftest import ROOT
from tests.test_imports import PACKAGES


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def hostile(path: Path) -> Path:
    """What looks like a checkpoint, and would make the file ``ran`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"global_step": 1, "state_dict": {}, "weight": Payload(path.parent / "ran")}
    torch.save(content | {"musicinfuser": {"model": {}}}, path)
    return path


# File -> reader of it, and what is said.
READERS = {
    "resuming": ("a.ckpt", AtomicCheckpointIO().load_checkpoint, "cannot be read as a checkpoint"),
    "the last": (
        "a.ckpt",
        lambda path: newest_checkpoint(path.parent),
        "no checkpoint can be read",
    ),
    "check": ("a.ckpt", read_checkpoint, "cannot be read as a checkpoint"),
    "an adapter": ("a.ckpt", adapter_of_checkpoint, "is no checkpoint of a training"),
    "the authors' adapter": (
        "musicinfuser.safetensors",
        lambda path: read_official_adapter(path, audio_encoder=None),
        "cannot be read as safetensors",
    ),
    "a cached clip": ("a.safetensors", read_clip, "cannot be read .* encode again"),
    "its header": ("a.safetensors", read_clip_header, "is not an encoded clip"),
    "cached features": (
        caption_path("", "words").as_posix(),
        lambda path: read_caption(path.parent.parent, "words"),
        "cannot be read .* encode again",
    ),
    "a model": ("pytorch_model.bin", lambda path: mapped_weights(path.parent), "cannot be read"),
    "LAION's head": ("a.pth", lambda path: convert_head(path, path), "is not LAION's linear head"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path, reader: str) -> None:
    name, read, message = READERS[reader]
    path = hostile(tmp_path / name)
    content = path.read_bytes()
    with pytest.raises(UserError, match=message):
        read(path)
    assert not (path.parent / "ran").exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert (path.parent / "ran").exists(), "the payload is harmless"


def test_a_hostile_latent_checkpoint_counts_as_none(tmp_path: Path) -> None:
    checkpoint, noise = LatentCheckpoint(tmp_path, "song", {}), torch.zeros(1)
    hostile(checkpoint.path)
    assert checkpoint.resume(noise, Euler(noise)) == (0, noise)
    assert not (tmp_path / "ran").exists()


def test_every_load_of_the_product_is_of_weights_only() -> None:
    # The argument, what it must be, and what it is where it is left out.
    harmless = {
        "torch.load": ("weights_only", "True", ""),
        "np.load": ("allow_pickle", "False", "False"),
    }
    found = 0
    for top in (*PACKAGES, "benchmarks"):
        files = (
            [ROOT / f"{top}.py"] if (ROOT / f"{top}.py").is_file() else (ROOT / top).rglob("*.py")
        )
        for path in files:
            for node in ast.walk(ast.parse(path.read_text())):
                call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                if call in harmless:
                    name, value, default = harmless[call]
                    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert given.get(name, default) == value, f"{path}: line {node.lineno}"
                    found += 1
    assert found >= 6
