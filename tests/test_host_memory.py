"""Training and sampling with blocks in host memory, through train.py, change no result."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from musicinfuser.media.audio import write_wav
from tests.conftest import cli_arguments
from tests.ranks import run_alone

FULL = "--model.init_args.memory.gradient_checkpointing=full"
IN_HOST_MEMORY = [
    FULL,
    *(
        f"--model.init_args.memory.{name}=true"
        for name in ("stream_blocks", "offload_inputs", "modulations_on_host")
    ),
]


def leaves(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, object] = {}
        for key, part in pairs:
            found |= leaves(part, f"{prefix}{key}/")
        return found
    return {prefix: value}


def test_fit_and_predict_give_the_same_files(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    saved, videos = [], []
    song = tmp_path / "song.wav"
    write_wav(song, 0.4 * torch.sin(torch.arange(16_000) / 6), rate_hz=16_000)
    for name, options in (("resident", [FULL]), ("host", IN_HOST_MEMORY)):
        root = tmp_path / name
        cli = run_cli("fit", *options, cache=small_cache, root=root)
        assert (cli.model.adapted.streamed is not None) == (name == "host")
        [path] = (root / "checkpoints").glob("last.ckpt")
        saved.append(leaves(torch.load(path, weights_only=True)))
        requests = {"music": [str(song)], "prompts": ["a dance"], "seeds": [3], "num_frames": 7}
        run_cli(
            "predict", *options, f"--data.init_args.generation={json.dumps(requests)}", root=root
        )
        [video] = (root / "videos").glob("*.mp4")
        videos.append(hashlib.sha256(video.read_bytes()).hexdigest())
    resident, host = saved
    weights = [key for key in resident if key.startswith(("state_dict/", "optimizer_states/"))]
    assert any("exp_avg" in key for key in weights) and any("zica" in key for key in weights)
    assert resident.keys() == host.keys()
    for key in weights:
        mine, theirs = host[key], resident[key]
        same = torch.equal(mine, theirs) if torch.is_tensor(theirs) else mine == theirs
        assert same, key
    assert videos[0] == videos[1]


def test_a_checkpoint_goes_on_in_host_memory(
    run_cli: Callable, small_cache: Path, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    shutil.copytree(fitted.root / "checkpoints", tmp_path / "checkpoints")
    cli = run_cli("fit", *IN_HOST_MEMORY, "--trainer.max_steps=3", cache=small_cache)
    assert cli.trainer.global_step == 3
    results = [
        run_cli(
            "validate", *options, "--trainer.limit_val_batches=1", cache=small_cache
        ).trainer.callback_metrics["val/loss"]
        for options in ([], IN_HOST_MEMORY)
    ]
    assert torch.equal(*results)


@pytest.mark.slow
def test_what_cannot_work_is_refused_in_one_sentence(small_parts: Path, tmp_path: Path) -> None:
    given = cli_arguments(
        "fit", "--model.init_args.memory.offload_inputs=true", parts=small_parts, cache=tmp_path,
        root=tmp_path / "run",
    )  # fmt: skip
    done = run_alone(tmp_path, given, cwd=tmp_path)
    assert done.exit_code == 1 and "Traceback" not in done.errors
    assert "gradient_checkpointing is none, set it to full." in done.errors
