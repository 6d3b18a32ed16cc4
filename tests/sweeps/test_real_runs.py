"""A sweep of two tiny rows through the real doors: one fails once, one is cut off once."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from musicinfuser.media.audio import write_wav
from sweeps.commands import status_rows, sweep_command
from sweeps.plan import plan_runs
from sweeps.settings import read_sweep
from sweeps.work import changed_settings
from tests.conftest import ROOT
from tests.sweeps.parsing import ParsingCLI


def test_a_row_from_before_an_option_by_the_real_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    spec = read_sweep("configs/sweeps/small_mask.yaml")
    *_, run = plan_runs(replace(spec, folder=str(tmp_path)))
    stage = run.stages[0]
    then = copy.deepcopy(stage.settings)
    # The record of a run that trained before there were these two.
    cli = ParsingCLI(list(stage.command[3:]))
    record = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    for name in ("return_predictions", "verbose"):  # of other commands
        del record[name]
    for config in (then["config"], record):
        mask = config["model"]["init_args"]["objective"].pop("mask")
        assert mask == {"weight": 3.0, "unmasked": "refuse"}
        assert config["trainer"]["callbacks"][3]["init_args"].pop("on_bad") == "stop"
    (run.folder / "logs").mkdir(parents=True)
    (run.folder / "logs" / "config_fit.yaml").write_text(yaml.safe_dump(record))
    assert changed_settings(run, stage, then) == [
        "config.model.init_args.objective.mask.weight: nothing (by default 1.0) in the run, 3.0 in "
        "the config"
    ]


@pytest.mark.slow
def test_two_rows_from_training_to_the_table(
    tmp_path: Path,
    small_parts: Path,
    small_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    clicks = torch.zeros(32_000)
    clicks[::8_000] = 0.9
    write_wav(tmp_path / "clicks.wav", clicks, rate_hz=16_000)
    (tmp_path / "uniform.yaml").write_text("beta_annealing: {mode: fixed, initial: 1.0}\n")
    sweep = {
        "folder": str(tmp_path / "out"),
        "configs": [f"{ROOT}/configs/base.yaml", f"{ROOT}/tests/tiny.yaml"],
        "options": {
            "model.init_args.backbone.pretrained": str(small_parts),
            "model.init_args.encoders.mochi": str(small_parts),
            "model.init_args.encoders.audio": str(small_parts),
            "data.init_args.cache_dir": str(small_cache),
        },
        "seeds": [1],
        "predict": {
            "data.init_args.generation": {
                "music": [str(tmp_path / "clicks.wav")],
                "prompts": ["a dancer", "another dancer"],
                "num_frames": 25,
            }
        },
        "rows": [
            {"name": "Ours"},
            {"name": "Uniform", "overlays": [str(tmp_path / "uniform.yaml")]},
        ],
        "score": {
            "metrics": f"{ROOT}/dance_eval/configs/metrics.yaml",
            "options": {"num_workers": 1},
        },
        "columns": {"beats": "beat_alignment/score"},
        "reference": "Ours",
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    # In the way of a training's checkpoints, once.
    blocked = tmp_path / "out" / "uniform_seed1" / "checkpoints"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("no folder")
    assert sweep_command(["sweep", str(path)]) == 1
    said = capsys.readouterr().out
    assert "ours_seed1: finished" in said, (tmp_path / "out/ours_seed1/fit.log").read_text()
    assert "uniform_seed1: failed (fit: " in said
    blocked.unlink()
    # As if the other had been cut off while it made its second clip.
    ours = tmp_path / "out" / "ours_seed1"
    state = json.loads((ours / "state.json").read_text())
    state["stages"]["predict"]["is_done"] = state["stages"]["score"]["is_done"] = False
    (ours / "state.json").write_text(json.dumps(state))
    kept, lost = sorted((ours / "videos").glob("*.mp4"))
    before = kept.stat().st_mtime_ns, kept.read_bytes()
    content = lost.read_bytes()
    lost.unlink()
    lost.with_suffix(".json").unlink()
    assert sweep_command(["sweep", str(path)]) == 0
    assert {row["step"] for row in status_rows(tmp_path / "out")} == {"2 / 2"}
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(document["systems"]) == ["Ours", "Uniform"]
    assert {clip["trained_with_seed"] for clip in document["clips"]} == {1}
    assert (kept.stat().st_mtime_ns, kept.read_bytes()) == before
    assert lost.read_bytes() == content
    numbers = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert numbers["differences"]["Uniform"]["beat_alignment/score"]["n"] == 2
    assert (tmp_path / "out" / "rows_beats.svg").read_text().startswith("<svg")
    config = (tmp_path / "out" / "uniform_seed1" / "logs" / "config_fit.yaml").read_text()
    assert yaml.safe_load(config)["beta_annealing"]["mode"] == "fixed"
