"""Sweeps with quick stand-ins for the doors: what is run, skipped, resumed, refused and locked."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from musicinfuser.folder_lock import is_locked, locked
from sweeps import plan
from sweeps.commands import status_rows, sweep_command
from sweeps.gpu_slots import GpuSlots, slot_environment
from sweeps.plan import plan_runs
from sweeps.settings import SweepError, read_sweep
from sweeps.work import LOCK_NAME
from tests.conftest import ROOT
from tests.sweeps.doors import DRIVER, read_json, steps, write_doors, write_sweep


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_doors(tmp_path / "doors")
    monkeypatch.setattr(plan, "ROOT", folder)
    return folder


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_driver(doors: Path, sweep: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(doors), "sweep", str(sweep)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background, interrupts are ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_one_that_fails_once_is_reported_and_done_on_the_next_call(
    tmp_path: Path, doors: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [
        {"name": "Ours"},
        {"name": "No luck", "options": {"fail_once": str(tmp_path / "tried")}, "seeds": [1]},
        {"name": "Guided", "adapters_of": "No luck", "seeds": [1]},
        {"name": "Again", "adapters_of": "Ours"},
        {"name": "Base", "train": False},
    ]
    sweep = write_sweep(tmp_path, rows)
    out = tmp_path / "out"
    assert sweep_command(["sweep", str(sweep)]) == 1
    said = capsys.readouterr().out
    assert "no_luck_seed1: failed (fit: train.py: no luck this time. (exit code 1" in said
    assert "guided_seed1: failed" in said
    assert "5 of 7 runs are finished." in said
    states = {row["row"]: row["state"] for row in status_rows(out)}
    assert states == {
        "Ours": "finished",
        "No luck": "failed",
        "Guided": "failed",
        "Again": "finished",
        "Base": "finished",
    }
    assert sweep_command(["sweep", str(sweep)]) == 0
    said = capsys.readouterr().out
    assert "ours_seed2: was finished before" in said
    assert "no_luck_seed1: finished" in said
    calls = {p.parent.name: p.read_text().split()[::3] for p in out.glob("*/calls")}
    assert calls == {
        "ours_seed1": ["fit", "predict"],
        "ours_seed2": ["fit", "predict"],
        "no_luck_seed1": ["fit", "fit", "predict"],
        "guided_seed1": ["predict"],
        "again_seed1": ["predict"],
        "again_seed2": ["predict"],
        "base_seed1": ["predict"],
    }
    taken = (out / "guided_seed1" / "videos" / "from").read_text()
    assert taken == str(out / "no_luck_seed1" / "checkpoints")
    for seed in (1, 2):
        taken = (out / f"again_seed{seed}" / "videos" / "from").read_text()
        assert taken == str(out / f"ours_seed{seed}" / "checkpoints")
    taken = (out / "ours_seed1" / "videos" / "from").read_text()
    assert taken == str(out / "ours_seed1" / "checkpoints"), "as `ckpt_path: last` would"
    assert (out / "base_seed1" / "videos" / "from").read_text() == "null"
    assert "| Ours    | 5.500 [4.500, 6.500] |" in (out / "rows.md").read_text()
    assert read_json(out / "metrics.json")["by_seed"]["Ours"]["beat/score"] == {"1": 5.5, "2": 5.5}


def test_a_killed_driver_and_a_second_one_never_share_a_folder(tmp_path: Path, doors: Path) -> None:
    sweep = write_sweep(
        tmp_path, [{"name": "Slow", "seeds": [1]}], options={"trainer.max_steps": 30, "pause": 0.1}
    )
    run = tmp_path / "out" / "slow_seed1"
    driver = start_driver(doors, sweep)
    wait_for(lambda: (run / "steps").exists())
    driver.kill()
    driver.communicate()
    # The training it had started goes on, and holds the lock.
    assert is_locked(run / LOCK_NAME)
    row = status_rows(tmp_path / "out")[0]
    assert (row["state"], row["stage"]) == ("running", "fit")
    assert row["step"].endswith(" / 30")
    assert row["time left"].startswith("0:00:")
    assert sweep_command(["sweep", str(sweep)]) == 1
    pid = int((run / "calls").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_locked(run / LOCK_NAME))
    num_done = steps(run)[-1]
    assert num_done < 30
    assert status_rows(tmp_path / "out")[0]["state"] == "stopped"
    assert sweep_command(["sweep", str(sweep)]) == 0
    # Resumed, not begun again.
    assert steps(run) == list(range(1, 31))
    assert (run / "calls").read_text().split()[::3] == ["fit", "fit", "predict"]


def test_ctrl_c_lets_runs_save_and_says_how_to_go_on(tmp_path: Path, doors: Path) -> None:
    sweep = write_sweep(
        tmp_path, [{"name": "Slow"}], options={"trainer.max_steps": 20, "pause": 0.1}
    )
    run = tmp_path / "out" / "slow_seed1"
    driver = start_driver(doors, sweep)
    wait_for(lambda: (run / "steps").exists())
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "repeat the command" in err
    assert "0 of 2 runs are finished." in out
    assert not is_locked(run / LOCK_NAME)
    assert (run / "calls").read_text().split()[::3] == ["fit"]
    assert [row["state"] for row in status_rows(tmp_path / "out")] == ["stopped", "waiting"]


def test_a_training_that_stops_early_by_itself_is_done(tmp_path: Path, doors: Path) -> None:
    options = {"trainer.max_steps": 3, "stops_early": 2}
    sweep = write_sweep(tmp_path, [{"name": "Early", "seeds": [1]}], options=options)
    assert sweep_command(["sweep", str(sweep)]) == 0
    run = tmp_path / "out" / "early_seed1"
    assert steps(run) == [1, 2]
    assert (run / "calls").read_text().split()[::3] == ["fit", "predict"]


def test_what_other_settings_made_is_refused(tmp_path: Path, doors: Path) -> None:
    rows = [{"name": "Ours"}]
    assert sweep_command(["sweep", str(write_sweep(tmp_path, rows))]) == 0
    changed = write_sweep(tmp_path, rows, options={"trainer.max_steps": 4})
    with pytest.raises(SweepError, match="ours_seed1 was made with other settings .*max_steps: 3"):
        sweep_command(["sweep", str(changed)])
    # More seeds and rows change no run; a comment changes none either.
    grown = write_sweep(tmp_path, [*rows, {"name": "More", "seeds": [1]}], seeds=[1, 2, 3])
    (tmp_path / "base.yaml").write_text("# said\ntrainer:\n  max_steps: 3\nlist: [1, 2]\n")
    assert sweep_command(["sweep", str(grown)]) == 0
    calls = (tmp_path / "out" / "ours_seed1" / "calls").read_text().split()[::3]
    assert calls == ["fit", "predict"]


def named(tmp_path: Path, text: str = "", **changes: object) -> Path:
    """A sweep of one row whose config holds a text too."""
    sweep = write_sweep(tmp_path, [{"name": "Ours", "seeds": [1]}], **changes)
    with (tmp_path / "base.yaml").open("a") as file:
        file.write(text)
    return sweep


def get_options(doors: Path, **options: object) -> None:
    """From now on train.py has these, with defaults."""
    (doors / "defaults.json").write_text(json.dumps(options))


YOUNGER = {"new": {"option": 1.0, "group": None}, "more": None}


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "out" / "ours_seed1" / "calls").read_text().split()[::3]


def test_what_was_made_before_an_option_has_its_default(
    tmp_path: Path, doors: Path, capsys: pytest.CaptureFixture
) -> None:
    assert sweep_command(["sweep", str(named(tmp_path))]) == 0
    get_options(doors, **YOUNGER)
    # The last config no longer names what the one before does.
    for text, predict in (("new: {option: 1, group: null}", {}), ("", {"more": None}), ("", {})):
        sweep = named(tmp_path, text, predict=predict)
        assert sweep_command(["sweep", str(sweep)]) == 0
        assert "ours_seed1: was finished before" in capsys.readouterr().out
        # The next time nothing is asked for.
        stages = read_json(tmp_path / "out" / "ours_seed1" / "state.json")["stages"]
        [run] = plan_runs(read_sweep(sweep))
        assert [stages[stage.name]["settings"] for stage in run.stages] == [
            stage.settings for stage in run.stages
        ]
    assert calls(tmp_path) == ["fit", "predict"]


@pytest.mark.parametrize(
    ("before", "now", "predict", "said"),
    [
        ("", "new: {option: 2}", {}, r"new.option: nothing \(by default 1.0\) in the run, 2 in"),
        ("", "new: {group: {a: 1}}", {}, "config.new.group.a: nothing in the run, 1 in the"),
        ("", "new: {group: {}}", {}, r"new.group: nothing \(by default None\) in the run, \{\} in"),
        ("new: {option: 2}", "", {}, r"new.option: 2 in the run, nothing \(by default 1.0\) in"),
        ("", "unknown: null", {}, "config.unknown: nothing in the run, None in the config"),
        ("", "", {"more": 3}, r"predict.more: nothing \(by default None\) in the run, 3 in the"),
    ],
)
def test_what_was_made_before_an_option_of_another_value_is_refused(
    tmp_path: Path, doors: Path, before: str, now: str, predict: dict, said: str
) -> None:
    assert sweep_command(["sweep", str(named(tmp_path, before))]) == 0
    get_options(doors, **YOUNGER)
    with pytest.raises(SweepError, match=f"ours_seed1 was made with other settings .*{said}"):
        sweep_command(["sweep", str(named(tmp_path, now, predict=predict))])
    assert calls(tmp_path) == ["fit", "predict"]


def test_an_option_whose_default_has_changed_is_what_it_was(tmp_path: Path, doors: Path) -> None:
    get_options(doors, new={"option": 3.0})
    assert sweep_command(["sweep", str(named(tmp_path))]) == 0
    get_options(doors, new={"option": 1.0})
    with pytest.raises(SweepError, match="config.new.option: 3.0 in the run, 1 in the config"):
        sweep_command(["sweep", str(named(tmp_path, "new: {option: 1}"))])
    assert sweep_command(["sweep", str(named(tmp_path, "new: {option: 3}"))]) == 0
    assert calls(tmp_path) == ["fit", "predict"]


def test_without_an_answer_on_defaults_other_options_are_refused(
    tmp_path: Path, doors: Path
) -> None:
    assert sweep_command(["sweep", str(named(tmp_path))]) == 0
    with pytest.raises(SweepError, match="config.new.option: nothing in the run, None in the"):
        sweep_command(["sweep", str(named(tmp_path, "new: {option: null}"))])


def test_another_backbone_in_the_same_folder_is_refused(tmp_path: Path, doors: Path) -> None:
    weights = tmp_path / "mochi" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one")
    backbone = {
        "trainer.max_steps": 3,
        "model.init_args.backbone.pretrained": str(tmp_path / "mochi"),
    }
    sweep = write_sweep(tmp_path, [{"name": "Ours"}], options=backbone)
    assert sweep_command(["sweep", str(sweep)]) == 0
    assert sweep_command(["sweep", str(sweep)]) == 0
    weights.write_bytes(b"two")
    with pytest.raises(SweepError, match="ours_seed1 was made with other settings .*weights"):
        sweep_command(["sweep", str(sweep)])


def test_clips_of_a_predict_that_was_cut_off_are_kept_but_not_those_of_other_settings(
    tmp_path: Path, doors: Path
) -> None:
    generation = "data.init_args.generation"
    sweep = write_sweep(tmp_path, [{"name": "Base", "train": False}], predict={"cut": "now"})
    assert sweep_command(["sweep", str(sweep)]) == 1
    videos = tmp_path / "out" / "base_seed1" / "videos"
    # Nothing is lost by other settings yet.
    options = {"cut": "now", generation: {"requests": "own.csv"}}
    sweep = write_sweep(tmp_path, [{"name": "Base", "train": False}], predict=options)
    [run] = plan_runs(read_sweep(sweep))
    [said] = [a for a in run.stages[0].command if a.startswith(f"--{generation}=")]
    assert json.loads(said.partition("=")[2]) == {
        "requests": "own.csv",
        "finished": {"folder": str(videos)},
    }
    assert run.stages[0].settings["predict"] == options
    assert sweep_command(["sweep", str(sweep)]) == 1
    (videos / "0.mp4").touch()
    other = write_sweep(tmp_path, [{"name": "Base", "train": False}], predict={"cut": "never"})
    with pytest.raises(SweepError, match="base_seed1 was made with other settings .*cut: now"):
        sweep_command(["sweep", str(other)])


def test_who_does_not_get_the_lock_is_told(tmp_path: Path) -> None:
    with locked(tmp_path / LOCK_NAME) as first, locked(tmp_path / LOCK_NAME) as second:
        assert first is not None
        assert second is None
    with locked(tmp_path / LOCK_NAME) as third:
        assert third is not None


def test_each_run_sees_one_gpu(tmp_path: Path, doors: Path) -> None:
    sweep = write_sweep(
        tmp_path,
        [{"name": "Ours"}],
        seeds=[1, 2, 3, 4],
        options={"trainer.max_steps": 2, "pause": 0.1},
        executor={
            "class_path": "sweeps.gpu_slots.GpuSlots",
            "init_args": {"gpus": ["0", "5"]},
        },
    )
    assert sweep_command(["sweep", str(sweep)]) == 0
    seen = [p.read_text().split()[2::3] for p in (tmp_path / "out").glob("*/calls")]
    assert all(fit == predict for fit, predict in seen)
    assert {fit for fit, _ in seen} == {"0", "5"}


def test_two_runs_at_once_share_the_cores(
    tmp_path: Path, doors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    sweep = write_sweep(
        tmp_path,
        [{"name": "Ours"}],
        options={"trainer.max_steps": 2, "pause": 0.5},
        executor={
            "class_path": "sweeps.gpu_slots.GpuSlots",
            "init_args": {"gpus": [], "cpu_runs": 2},
        },
    )
    assert sweep_command(["sweep", str(sweep)]) == 0
    seen = [p.read_text().split() for p in (tmp_path / "out").glob("*/threads")]
    assert seen == [["3", "3"]] * 2
    spans = [read_json(p) for p in (tmp_path / "out").glob("*/span.json")]
    assert max(start for start, _ in spans) < min(end for _, end in spans)
    # What the user chose stays.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with GpuSlots([], cpu_runs=2) as slots:
        assert slots.submit(slot_environment).result() == {}
    with pytest.raises(SweepError, match="cpu_runs is 0"):
        GpuSlots([], cpu_runs=0)


def test_another_executor_by_class_path(tmp_path: Path, doors: Path) -> None:
    sweep = write_sweep(
        tmp_path,
        [{"name": "Ours", "seeds": [1]}],
        executor={
            "class_path": "concurrent.futures.ProcessPoolExecutor",
            "init_args": {"max_workers": 1},
        },
    )
    assert sweep_command(["sweep", str(sweep)]) == 0
