"""The shipped list of metrics from joints, through evaluate.py."""

import json

import pytest
import torch
import yaml

from dance_eval.metrics.pose_beats import DEFINITIONS
from dance_eval.metrics.skeletons import COCO17
from tests.conftest import ROOT
from tests.scored_dances import known_beats, score, write_dance

SHIPPED = ROOT / "dance_eval" / "configs" / "pose_metrics.yaml"


def test_joints_beside_clips_give_all_definitions_beside_each_other(tmp_path):
    lines = ["file,system,track"]
    for system, offset in (("on", 0.0), ("off", 0.25)):
        for index in range(3):
            file = tmp_path / "clips" / f"{system}{index}.mp4"
            write_dance(file, num_frames=73)
            times = torch.arange(73)[:, None, None] / 30 - offset
            home = torch.rand(1, 17, 2, generator=torch.Generator().manual_seed(index)) * 100
            # Every joint rests at offset, offset + 0.5 s, ...
            places = home + 20 * torch.cos(2 * torch.pi * times).expand(-1, 17, 2)
            content = {"joints": places.tolist(), "names": list(COCO17), "seen": [[1] * 73]}
            file.with_suffix(".joints.json").write_text(json.dumps(content))
            lines.append(f"{file.name},{system},song.wav")
    (tmp_path / "clips" / "clips.csv").write_text("\n".join(lines) + "\n")
    known_beats(tmp_path / "clips" / "song.json", [0.5 * k for k in range(5)])
    metrics = yaml.safe_load(SHIPPED.read_text())
    names = [metric["init_args"]["name"] for metric in metrics]
    assert {m["init_args"].get("definition") for m in metrics} >= set(DEFINITIONS)
    document = score(
        tmp_path / "clips",
        f"--metrics={SHIPPED}",
        f"--beats_folder={tmp_path / 'clips'}",
        output=tmp_path / "m.json",
    )
    assert not any(clip["failures"] for clip in document["clips"])
    on, off = document["systems"]["on"], document["systems"]["off"]
    for name in names:
        if name.startswith("pose_beats"):
            assert on[f"{name}/score"]["mean"] > on[f"{name}/chance"]["mean"]
            assert on[f"{name}/score"]["mean"] > off[f"{name}/score"]["mean"] + 0.1
    # Placed in the middle of two frames or at their ends, the same rests score differently.
    assert on["pose_beats/score"]["mean"] > 0.95 > on["pose_beats_bailando/score"]["mean"]
    assert on["div_k/distance"]["mean"] > 0 and on["div_k/shuffled"]["mean"] > 0
    assert on["foot_sliding/score"]["mean"] == pytest.approx(
        off["foot_sliding/score"]["mean"], rel=0.1
    )
