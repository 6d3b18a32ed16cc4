"""``train.py check`` counts the memory of a training and names what fits this machine."""

from collections.abc import Callable
from pathlib import Path

import pytest


def test_devices_share_a_sharded_backbone(check: Callable) -> None:
    def memory(*options: str) -> str:
        return dict(check(*options).sections)["memory (an estimate)"]

    sharded = "--model.init_args.shard_backbone=true"
    assert "frozen weights, one of 4 shares" in memory(sharded, "--trainer.devices=4")
    assert "frozen weights, one of 2 shares" in memory(sharded, "--trainer.devices=[0,3]")
    assert "shares" not in memory(sharded, "--trainer.devices=1") + memory("--trainer.devices=4")


def test_blocks_in_host_memory_are_counted_there(check: Callable) -> None:
    def memory(*options: str) -> tuple[dict[str, float], float]:
        full = "--model.init_args.memory.gradient_checkpointing=full"
        accelerator = "--trainer.accelerator=auto"
        text = dict(check(full, accelerator, *options).sections)["memory (an estimate)"]
        requests = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("|")]
        return {what.strip(): size.strip() for what, size in requests}, text

    resident, _ = memory()
    streamed, text = memory(
        "--model.init_args.memory.stream_blocks=true",
        "--model.init_args.memory.offload_inputs=true",
    )
    assert streamed.keys() - resident.keys() == {"weights of two blocks, copied"}
    assert float(streamed["together"]) <= float(resident["together"])
    assert "RAM: about" in text


def test_machines(check: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflight.memory.gpu_bytes", lambda: [])
    (problem,) = check("--trainer.accelerator=auto").problems
    assert problem.startswith("there is no CUDA GPU here and trainer.accelerator is auto")
    monkeypatch.setattr("preflight.memory.gpu_bytes", lambda: [10**9])
    (problem,) = check("--trainer.accelerator=gpu").problems
    assert "GB of GPU memory and the GPU has 1.0 GB" in problem
    monkeypatch.setattr("preflight.memory.gpu_bytes", lambda: [80 * 10**9])
    assert check("--trainer.accelerator=gpu").problems == []


def test_the_profile_for_this_machine_comes_with_its_work_and_command(
    check: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(gb: float, *options: str) -> str:
        monkeypatch.setattr("preflight.memory.gpu_bytes", lambda: [gb * 10**9])
        return dict(check("--trainer.accelerator=gpu", *options).sections)["profiles (an estimate)"]

    text = said(80)
    assert "TFLOP per step" in text.splitlines()[0]
    line, command = text.splitlines()[-2:]
    assert line.startswith("the fastest that fits this machine is 80gb: ")
    assert "GB on the GPU, 0 GB in host memory" in line and "TFLOP per step" in line
    # The files of the check, but for a profile, whose place another takes.
    names = [Path(word).name for word in command.split() if word.endswith(".yaml")]
    assert names == ["base.yaml", "tiny.yaml", "80gb.yaml"]
    assert said(80, "--config=configs/profiles/40gb.yaml").splitlines()[-1] == command
    assert said(0.001).splitlines()[-1].startswith("none fits this machine")
    # With buckets, of the one with the most tokens.
    longest = said(80, "--data.init_args.buckets=[[64,64],[607,32,32],[32,32]]")
    assert longest == said(80, "--data.init_args.num_frames=607") != text
