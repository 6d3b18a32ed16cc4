import csv
import json
import shutil
import sys

import pytest
import yaml

from dance_eval.commands.options import read_metrics
from dance_eval.loading import EvaluationError
from dance_eval.metrics.clip_folder import ClipListError
from dance_eval.metrics.features import PixelStatistics
from evaluate import main
from tests.conftest import ROOT
from tests.scored_dances import metrics_file, score, write_dance

PIXELS = {"class_path": "dance_eval.metrics.features.PixelStatistics"}
FRECHET = "dance_eval.metrics.frechet.FrechetDistance"
DIVERSITY = "dance_eval.metrics.seed_diversity.SeedDiversity"


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """Two systems with three clips each of one prompt and music; seeds only in the lists of one."""
    folder = tmp_path_factory.mktemp("systems")
    for system, phase in (("one", 0.1), ("two", 0.3)):
        lines = ["file,system,track,prompt,seed"]
        for index in range(3):
            file = folder / system / f"clip{index}.mp4"
            write_dance(file, phase_seconds=phase + 0.05 * index, num_frames=31)
            lines.append(
                f"{file.name},{system},song.wav,a dance,{index if system == 'one' else ''}"
            )
        (folder / system / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def described(monkeypatch):
    """Counts the clips whose features are computed."""
    frames, features = [], PixelStatistics.features

    def counted(self, clip):
        frames.append(len(clip))
        return features(self, clip)

    monkeypatch.setattr(PixelStatistics, "features", counted)
    return frames


def set_metrics(path, **frechet):
    arguments = {
        DIVERSITY: {"features": PIXELS, "name": "diversity"},
        FRECHET: {"features": PIXELS, "reference": "one", "num_resamples": 9, "name": "frechet"},
    }
    arguments[FRECHET] |= frechet
    return f"--metrics={metrics_file(path, DIVERSITY, FRECHET, **arguments)}"


def test_values_of_sets_stand_beside_the_others(systems, tmp_path, capsys):
    output = tmp_path / "m.json"
    metrics = set_metrics(tmp_path / "metrics.yaml")
    document = score(systems / "one", systems / "two", metrics, output=output)
    one, two = document["systems"]["one"], document["systems"]["two"]
    assert one["diversity/distance"]["mean"] > 0 and one["diversity/distance"]["n"] == 1
    assert two["diversity/distance"]["mean"] > 0
    assert one["frechet/distance"] == {
        "mean": None, "low": None, "high": None, "n": 0, "num_failed": 0
    }  # fmt: skip
    distance = two["frechet/distance"]
    assert 0 <= distance["low"] < distance["mean"] < distance["high"]
    assert (distance["n"], two["frechet/num_reference"]["mean"]) == (3, 3)
    assert "| frechet/distance" in capsys.readouterr().out
    main(["table", str(output), "--format=csv", f"--output={tmp_path / 'table.csv'}"])
    rows = {(r["system"], r["metric"]): r for r in csv.DictReader((tmp_path / "table.csv").open())}
    assert float(rows["two", "frechet/distance"]["mean"]) == distance["mean"]
    clip = document["clips"][0]
    assert (clip["seed"], clip["num_frames"], clip["fps"]) == (0, 31, 30)
    assert (output.with_suffix(".features") / clip["features"]["frechet"]).is_file()


def test_clips_are_described_once_and_again_where_that_is_lost(systems, tmp_path, described):
    output = tmp_path / "m.json"
    metrics = set_metrics(tmp_path / "metrics.yaml")
    first = score(systems / "one", systems / "two", metrics, output=output)
    # Two metrics share the features of each of six clips.
    assert len(described) == 6
    assert score(systems / "one", systems / "two", metrics, output=output) == first
    other = set_metrics(tmp_path / "metrics.yaml", reference="two")
    second = score(systems / "one", systems / "two", other, output=output)
    assert len(described) == 6 and second["systems"]["one"]["frechet/distance"]["n"] == 3
    files = sorted(output.with_suffix(".features").iterdir())
    assert len(files) == 12
    files[0].write_bytes(files[0].read_bytes()[:50])
    files[1].unlink()
    assert score(systems / "one", systems / "two", other, output=output) == second
    assert len(described) in (7, 8)
    set_metrics(tmp_path / "metrics.yaml", features=PIXELS | {"init_args": {"grid": 2}})
    score(systems / "one", systems / "two", metrics, output=output)
    assert 12 < len(described) <= 14


def test_a_clip_that_cannot_be_described_is_counted(systems, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(systems / "two", folder)
    (folder / "clip1.mp4").write_bytes(b"no video")
    metrics = set_metrics(tmp_path / "metrics.yaml")
    document = score(systems / "one", folder, metrics, output=tmp_path / "m.json")
    distance = document["systems"]["two"]["frechet/distance"]
    assert (distance["n"], distance["num_failed"]) == (2, 1)
    [failed] = [clip for clip in document["clips"] if clip["failures"]]
    assert "clip1.mp4" in failed["failures"]["frechet"]


def test_values_of_sets_wait_for_the_last_clip(systems, tmp_path, monkeypatch):
    output = tmp_path / "m.json"
    metrics = set_metrics(tmp_path / "metrics.yaml")
    features, calls = PixelStatistics.features, []

    def stopped(self, frames):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return features(self, frames)

    monkeypatch.setattr(PixelStatistics, "features", stopped)
    with pytest.raises(KeyboardInterrupt):
        score(systems / "one", systems / "two", metrics, output=output)
    document = json.loads(output.read_text())
    assert document["complete"] is False and "frechet/distance" not in document["systems"]["two"]
    document = score(systems / "one", systems / "two", metrics, output=output)
    assert document["complete"] and document["systems"]["two"]["frechet/distance"]["n"] == 3
    assert len(calls) == 7


def test_joints_beside_a_clip_are_part_of_what_its_values_depend_on(tmp_path):
    folder, output = tmp_path / "clips", tmp_path / "m.json"
    write_dance(folder / "clip.mp4", num_frames=31)
    spec = {
        "class_path": "dance_eval.metrics.motion_frequency.MotionFrequency",
        "init_args": {"motion": {"class_path": "dance_eval.metrics.joint_track.JointTrack"}},
    }
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump([spec]))
    metrics = f"--metrics={tmp_path / 'metrics.yaml'}"
    with pytest.raises(EvaluationError, match="None of the 1 clips"):
        score(folder, metrics, output=output)
    hertz = []
    for period in (10, 6):
        places = [[[(k % period) * abs(k % period - 3.0), 0.0]] for k in range(31)]
        (folder / "clip.json").write_text(json.dumps({"joints": places}))
        document = score(folder, metrics, output=output)
        hertz.append(document["clips"][0]["values"]["motion_frequency"]["hertz"])
    assert hertz == pytest.approx([3.0, 5.0], rel=0.15)


def test_clips_of_other_lengths_and_rates_are_named(tmp_path, capsys):
    for index, frames in enumerate((31, 31, 40)):
        write_dance(tmp_path / "clips" / f"clip{index}.mp4", num_frames=frames)
    kind = "dance_eval.metrics.motion_frequency.MotionFrequency"
    metrics = f"--metrics={metrics_file(tmp_path / 'metrics.yaml', kind)}"
    for _ in range(2):  # also where nothing is decoded
        score(tmp_path / "clips", metrics, output=tmp_path / "m.json")
        line = next(x for x in capsys.readouterr().out.splitlines() if "differ in length" in x)
        assert "2 of 31 frames at 30 fps, such as clips: clip0.mp4" in line
        assert "1 of 40 frames at 30 fps, such as clips: clip2.mp4" in line


def test_an_empty_folder_among_others_is_named(systems, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipListError, match="empty: holds no clips"):
        score(systems / "one", tmp_path / "empty", output=tmp_path / "m.json")


def test_a_missing_opencv_is_one_sentence_before_scoring(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        EvaluationError, match=r"pixel_metrics.yaml: Optical flow needs OpenCV"
    ) as e:
        read_metrics(ROOT / "dance_eval" / "configs" / "pixel_metrics.yaml")
    assert str(e.value).count("\n") == 0 and len(str(e.value)) < 300
