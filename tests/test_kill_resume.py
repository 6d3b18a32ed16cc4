"""What is compared after the kills, and the run that is killed."""

import argparse
from pathlib import Path

import pytest
import torch
import yaml

from musicinfuser.media.latents import read_headers
from tests import kill_resume


def finished(
    root: Path, *, weight: float = 1.0, average: float = 2.0, lines: str = "a\nb\n"
) -> Path:
    (root / "checkpoints").mkdir(parents=True)
    checkpoint = {
        "global_step": 4,
        "state_dict": {"w": torch.tensor([weight])},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(4.0)}}}],
        "lr_schedulers": [{"last_epoch": 4}],
        "callbacks": {"AdapterEMA": {"average": {"w": torch.tensor(average)}}},
    }
    torch.save(checkpoint, root / "checkpoints" / "last.ckpt")
    (root / "record").write_text(lines)
    return root


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"lines": "a\na\nb\n"}, None),
        ({"weight": 1.0 + 2**-23}, "state_dict/w"),
        ({"average": 2.5}, "AdapterEMA/average/w"),
        ({"lines": "a\nc\n"}, "batch b"),
    ],
)
def test_names_the_first_difference(tmp_path: Path, changes: dict, expected: str | None) -> None:
    whole, killed = finished(tmp_path / "whole"), finished(tmp_path / "killed", **changes)
    assert kill_resume.compare(whole, killed) == expected


def test_structures_differ_where_their_shapes_do() -> None:
    assert kill_resume.first_difference({"a": [1, 2]}, {"a": [1, 2, 3]}) == "/a"
    assert kill_resume.first_difference({"a": 1}, {"b": 1}, "top") == "top"
    assert kill_resume.first_difference([(1, {"x": 2})], [(1, {"x": 3})]) == "/0/1/x"


def test_the_run_it_kills_can_be_built(small_parts: Path, tmp_path: Path) -> None:
    cache, overlay = tmp_path / "cache", tmp_path / "run" / "overlay.yaml"
    kill_resume.write_cache(cache, small_parts, seed=0)
    headers = read_headers(cache)
    assert len(headers) == 2 * kill_resume.NUM_CLIPS
    assert {header.source for header in headers} == {"aist", "youtube"}
    settings = argparse.Namespace(steps=7, save_every=2, seed=3, workers=1)
    kill_resume.write_overlay(overlay, small_parts, cache, settings)
    written = yaml.safe_load(overlay.read_text())
    assert written["trainer"]["max_steps"] == 7
    assert written["data"]["init_args"]["num_workers"] == 1
