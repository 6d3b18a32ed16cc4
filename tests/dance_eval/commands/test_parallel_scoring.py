import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from dance_eval.loading import EvaluationError
from dance_eval.metrics.scoring import one_thread
from dance_eval.metrics.workers import WorkerLost, results_of
from tests.conftest import ROOT
from tests.scored_dances import NUM_CLIPS, Brightness, score
from tests.worker_tasks import squared

PIXELS = {"class_path": "dance_eval.metrics.features.PixelStatistics"}
FLOW = {"class_path": "dance_eval.metrics.optical_flow.OpticalFlow"}


def metrics_of(path, **init_args):
    """Metrics of every kind; those of the last two modules are the tests' own."""
    kinds = {
        "beat": "dance_eval.metrics.beat_alignment.BeatAlignment",
        "diversity": "dance_eval.metrics.seed_diversity.SeedDiversity",
        "frechet": "dance_eval.metrics.frechet.FrechetDistance",
        "deadly": "tests.worker_tasks.Deadly",
        "brightness": "tests.scored_dances.Brightness",
    }
    arguments = {
        "beat": {"motion": FLOW}, "diversity": {"features": PIXELS},
        "frechet": {"features": PIXELS, "reference": "off_beat", "num_resamples": 9},
    }  # fmt: skip
    specs = [
        {"class_path": kind, "init_args": {"name": name} | arguments.get(name, {})
         | init_args.get(name, {})}
        for name, kind in kinds.items()
    ]  # fmt: skip
    path.write_text(yaml.safe_dump(specs))
    return f"--metrics={path}"


def test_a_process_that_dies_costs_its_own_task():
    results = dict(results_of(range(8), squared, num_workers=2))
    assert sorted(results) == list(range(8))
    assert results.pop(3) == WorkerLost(-signal.SIGKILL)
    assert {n: square for n, (square, _, _) in results.items()} == {
        n: n**2 for n in range(8) if n != 3
    }
    assert {threads for _, threads, _ in results.values()} == {1}
    assert os.getpid() not in {pid for _, _, pid in results.values()}
    assert "memory runs out" in str(WorkerLost(-9)) and "code 1" in str(WorkerLost(1))


def test_whoever_stops_leaves_no_process_behind():
    results = results_of(range(20, 60), squared, num_workers=2)
    next(results)
    results.close()
    with pytest.raises(ValueError, match="no square"):
        list(results_of([1, 100, 1], squared, num_workers=2))
    assert multiprocessing.active_children() == []


def test_values_do_not_depend_on_the_number_of_processes(dances, tmp_path):
    Brightness.scored.clear()
    metrics = metrics_of(tmp_path / "metrics.yaml")
    folders = dances / "on_beat", dances / "off_beat"
    one, two = (
        score(*folders, metrics, output=tmp_path / str(n) / "m.json", num_workers=n) for n in (1, 2)
    )
    assert one == two
    assert one["systems"]["on_beat"]["deadly/num_threads"]["mean"] == 1
    assert one["systems"]["on_beat"]["beat/score"]["n"] == NUM_CLIPS
    # What several processes may not score was scored here, in order.
    names = [clip["file"] for clip in one["clips"]]
    assert Brightness.scored[-2 * NUM_CLIPS :] == names
    # Nothing is left to do, not even for the metrics over sets.
    again = score(*folders, metrics, output=tmp_path / "2" / "m.json", num_workers=2)
    assert again == one and len(Brightness.scored) == 4 * NUM_CLIPS


def test_a_killed_process_is_a_failure_of_its_clip(dances, tmp_path):
    folders, output = (dances / "on_beat", dances / "off_beat"), tmp_path / "m.json"
    victim = metrics_of(tmp_path / "metrics.yaml", deadly={"victim": "clip2.mp4"})
    document = score(*folders, victim, output=output, num_workers=2)
    failures = {(c["system"], c["file"]): c["failures"] for c in document["clips"]}
    hit = {place for place, failed in failures.items() if failed}
    assert hit == {("on_beat", "clip2.mp4"), ("off_beat", "clip2.mp4")}
    found = failures["on_beat", "clip2.mp4"]
    assert set(found) == {"beat", "diversity", "frechet", "deadly"}
    assert "memory runs out" in found["beat"]
    summary = document["systems"]["on_beat"]
    assert (summary["beat/score"]["n"], summary["beat/score"]["num_failed"]) == (NUM_CLIPS - 1, 1)
    distance = summary["frechet/distance"]
    assert (distance["n"], distance["num_failed"]) == (NUM_CLIPS - 1, 1)
    # With another metric in its place the clip is scored.
    document = score(*folders, metrics_of(tmp_path / "metrics.yaml"), output=output)
    assert not any(clip["failures"] for clip in document["clips"])


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_a_reference_that_is_not_there_is_said_before_scoring(dances, tmp_path):
    metrics = metrics_of(tmp_path / "metrics.yaml", frechet={"reference": "truth"})
    with pytest.raises(EvaluationError, match="'truth', but the folders hold 'on_beat'"):
        score(dances / "on_beat", metrics, output=tmp_path / "m.json")


@pytest.mark.slow
def test_an_interrupt_from_the_keyboard_ends_everything(dances, tmp_path):
    output = tmp_path / "m.json"
    command = [
        sys.executable, "evaluate.py", "score", dances / "on_beat", dances / "off_beat",
        f"--output={output}", "--music_beats=truth", "--num_workers=2",
        metrics_of(tmp_path / "metrics.yaml", brightness={"name": "brightness"}),
    ]  # fmt: skip
    # In a process group of its own, which a terminal would interrupt as a whole.
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not list(tmp_path.glob("m.features/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "repeat the command to go on" in errors
    assert "Traceback" not in errors
    assert json.loads(output.read_text())["complete"] is False
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
