import csv
import json
import runpy
import shutil
import sys
from pydoc import locate

import pytest
import torch
import yaml

from dance_eval.commands.options import read_metrics
from dance_eval.loading import EvaluationError
from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.beat_energy import BeatEnergy
from dance_eval.metrics.clip_folder import ClipListError
from dance_eval.metrics.lag_response import LagResponse
from dance_eval.metrics.report import ReportError
from dance_eval.metrics.tempo_response import TempoResponse
from evaluate import main
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video_writing import write_video
from tests.conftest import ROOT
from tests.dancing_square import click_track
from tests.scored_dances import (
    NUM_CLIPS,
    SCORE,
    Brightness,
    known_beats,
    metrics_file,
    score,
    write_dance,
)

RHYTHM = ["beat_alignment", "beat_alignment_over_music", "beat_coverage"]
NAMES = [*RHYTHM, "lag_response", "beat_energy", "tempo_response"]


def test_dances_on_the_beat_score_high_and_others_at_chance(dances, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    document = score(dances / "on_beat", dances / "off_beat", output=output)
    right, wrong = document["systems"]["on_beat"], document["systems"]["off_beat"]
    assert right[SCORE]["mean"] > 0.9
    assert right[SCORE]["n"] == wrong[SCORE]["n"] == NUM_CLIPS
    assert right[SCORE]["num_failed"] == 0
    assert right["beat_alignment/z"]["mean"] > 2
    assert wrong[SCORE]["mean"] == pytest.approx(wrong["beat_alignment/chance"]["mean"], abs=0.05)
    assert abs(wrong["beat_alignment/z"]["mean"]) < 0.5
    assert wrong[SCORE]["low"] < wrong[SCORE]["mean"] < wrong[SCORE]["high"] < right[SCORE]["low"]
    # A beat every half second: 0.05 * sqrt(2 pi) / 0.5, less a little at the ends of the clip.
    assert right["beat_alignment/chance"]["mean"] == pytest.approx(0.2507, abs=0.02)
    assert (document["seed"], document["confidence"], document["complete"]) == (0, 0.95, True)
    assert len(document["clips"]) == 2 * NUM_CLIPS
    assert document["clips"][3]["music_beats"] == "truth"
    printed = capsys.readouterr().out
    assert f"| {SCORE} " in printed
    assert f"{right[SCORE]['mean']:.3f} [{right[SCORE]['low']:.3f}, " in printed


def test_the_direction_is_one_config_value(dances, tmp_path):
    both = metrics_file(
        tmp_path / "both.yaml", *["dance_eval.metrics.beat_alignment.BeatAlignment"] * 2
    )
    specs = yaml.safe_load(both.read_text())
    specs[1]["init_args"] = {"average_over": "music", "name": "bailando"}
    both.write_text(yaml.safe_dump(specs))
    document = score(
        dances / "off_beat", f"--metrics={both}", "--seed=4", output=tmp_path / "metrics.json"
    )
    values = document["clips"][2]["values"]
    assert values["bailando"]["score"] != values["beat_alignment"]["score"]
    assert document["metrics"][1]["init_args"]["average_over"] == "music"
    assert document["metrics"][1]["init_args"]["num_shifts"] == 1000
    assert document["seed"] == 4


def test_the_shipped_config_states_the_defaults():
    specs = yaml.safe_load((ROOT / "dance_eval" / "configs" / "metrics.yaml").read_text())
    assert [spec["init_args"]["name"] for spec in specs] == NAMES
    for spec in specs:
        kind = locate(spec["class_path"])
        arguments = spec["init_args"]
        direction = {"over_music": "music"}.get(arguments["name"][15:], "kinematic")
        assert arguments.pop("average_over", direction) == direction
        shipped, default = kind(**arguments), kind()
        for name in set(arguments) - {"name"}:
            assert getattr(shipped, name) == pytest.approx(getattr(default, name)), name


@pytest.mark.parametrize(
    "name",
    [
        "dance_eval/configs/metrics",
        "dance_eval/configs/pixel_metrics",
        "configs/small_world/metrics",
    ],
)
def test_every_shipped_config_can_be_built(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    metrics, specs = read_metrics(ROOT / f"{name}.yaml")
    assert len(metrics) == len(specs) >= 3
    assert {"beat_alignment", "beat_alignment_over_music", "beat_coverage"} <= {
        metric.name for metric in metrics
    }
    if name == "pixel_metrics":
        # Flow is the costly part; these share it.
        assert metrics[0].motion == metrics[1].motion == metrics[2].motion != metrics[6].motion
    if name == "small_metrics":
        curves = {m.motion for m in metrics if getattr(m, "motion", None) is not None}
        assert len(curves) == 1


def test_known_beats_may_lie_in_another_folder(few, tmp_path):
    known = tmp_path / "known"
    known.mkdir()
    for index in range(2):
        (few / f"clip{index}.json").rename(known / f"clip{index}.json")
    document = score(few, f"--beats_folder={known}", output=tmp_path / "metrics.json")
    assert document["systems"]["few"][SCORE]["n"] == 2


def test_the_confidence_is_that_of_the_intervals(dances, tmp_path):
    wide, narrow = (
        score(dances / "off_beat", f"--confidence={confidence}", output=tmp_path / "metrics.json")
        for confidence in (0.99, 0.5)
    )
    assert (wide["confidence"], narrow["confidence"]) == (0.99, 0.5)
    wide, narrow = wide["systems"]["off_beat"][SCORE], narrow["systems"]["off_beat"][SCORE]
    assert wide["mean"] == narrow["mean"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_every_failure_is_counted_with_its_reason_and_ends_nothing(
    few, tmp_path, brightness, capsys
):
    (few / "broken.mp4").write_bytes(b"not a video")
    (few / "empty.mp4").write_bytes(b"")
    write_dance(few / "silent.mp4", sound=False)
    write_dance(few / "unknown.mp4")
    (few / "clips.csv").write_text("file,system,track\ngone.mp4,few,\n")
    metrics = brightness(failing="clip0.mp4", undefined="silent.mp4")
    metrics.write_text(
        metrics.read_text() + (ROOT / "dance_eval" / "configs" / "metrics.yaml").read_text()
    )
    output = tmp_path / "metrics.json"
    document = score(few, f"--metrics={metrics}", output=output)
    failures = {clip["file"]: clip["failures"] for clip in document["clips"]}
    assert failures["clip1.mp4"] == {}
    assert failures["clip0.mp4"] == {"brightness": "RuntimeError: out of memory"}
    assert "mean_level" in failures["silent.mp4"]["brightness"]
    assert "silent.json" in failures["silent.mp4"]["beat_alignment"]
    assert set(failures["unknown.mp4"]) == {*RHYTHM, "beat_energy"}
    for file in ("broken.mp4", "empty.mp4", "gone.mp4"):
        assert set(failures[file]) == {"brightness", *NAMES}
        assert file in failures[file]["brightness"]
    summary = document["systems"]["few"]
    assert (summary[SCORE]["n"], summary[SCORE]["num_failed"]) == (2, 5)
    level = summary["brightness/mean_level"]
    assert (level["n"], level["num_failed"]) == (2, 5)
    printed = capsys.readouterr().out
    assert "6 of 7 clips failed" in printed
    assert "out of memory" in printed
    # A failure is tried again, a value is not.
    Brightness.scored.clear()
    score(few, f"--metrics={metrics}", output=output)
    assert Brightness.scored == ["clip0.mp4", "silent.mp4"]


def test_a_silent_clip_without_a_track_has_no_beats_to_track(tmp_path):
    write_dance(tmp_path / "clips" / "silent.mp4", sound=False)
    output = tmp_path / "metrics.json"
    with pytest.raises(EvaluationError, match="None of the 1 clips"):
        main(["score", str(tmp_path / "clips"), f"--output={output}"])
    document = json.loads(output.read_text())
    [clip] = document["clips"]
    assert "silent.mp4" in clip["failures"]["beat_alignment"]
    assert "audio" in clip["failures"]["beat_alignment"]
    summary = document["systems"]["clips"][SCORE]
    assert summary == {"mean": None, "low": None, "high": None, "n": 0, "num_failed": 1}


def test_a_file_that_is_not_the_manifests_is_a_failure(dances, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(dances / "on_beat", folder)
    known_beats(tmp_path / "song.json", [0.5 * k for k in range(40)])
    shutil.copy(folder / "clip1.mp4", folder / "clip0.mp4")
    document = score(folder, dances / "off_beat", output=tmp_path / "metrics.json")
    assert document["systems"]["on_beat"][SCORE]["num_failed"] == 1
    assert document["systems"]["off_beat"][SCORE]["num_failed"] == 0
    assert "sha256" in document["clips"][0]["failures"]["beat_alignment"]
    assert document["systems"]["on_beat"][SCORE]["n"] == NUM_CLIPS - 1


def test_tall_frames_are_scaled_down(few, tmp_path, brightness, monkeypatch):
    shapes = []

    def shape(self, clip):
        shapes.append(tuple(clip.frames.shape))
        return {"mean_level": 0.0}

    monkeypatch.setattr(Brightness, "score_clip", shape)
    score(few, f"--metrics={brightness()}", "--max_height=24", output=tmp_path / "metrics.json")
    assert shapes == [(73, 24, 32, 3)] * 2


def test_wrong_calls_are_one_sentence_each(few, tmp_path, brightness):
    output = tmp_path / "metrics.json"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipListError, match=r"empty: holds no clips; expected .*\.$"):
        score(tmp_path / "empty", output=output)
    twice = brightness()
    twice.write_text(twice.read_text() * 2)
    with pytest.raises(EvaluationError, match="name"):
        score(few, f"--metrics={twice}", output=output)
    shutil.copytree(few, tmp_path / "other" / "few")
    with pytest.raises(EvaluationError, match="both be the system 'few'"):
        score(few, tmp_path / "other" / "few", output=output)
    assert not output.exists()
    output.write_text('{"mine": 1}')
    with pytest.raises(ReportError, match="is not a metrics file"):
        score(few, output=output)
    assert output.read_text() == '{"mine": 1}'
    with pytest.raises(SystemExit):
        score(few, "--confidence=95", output=output)


def test_tables_of_a_finished_evaluation(dances, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    document = score(dances / "on_beat", dances / "off_beat", output=output)
    printed = capsys.readouterr().out
    main(["table", str(output)])
    table = capsys.readouterr().out
    assert printed.startswith(table)
    assert [cell.strip() for cell in table.splitlines()[0].split("|")[1:-1]] == [
        "mean [95% interval]",
        "on_beat",
        "off_beat",
    ]
    file = tmp_path / "tables" / "table.csv"
    main(["table", str(output), "--format=csv", f"--output={file}"])
    rows = list(csv.DictReader(file.open()))
    other = LagResponse.value_names + BeatEnergy.value_names + TempoResponse().value_names
    num_values = len(RHYTHM) * len(BeatAlignment.value_names) + len(other)
    assert len(rows) == 2 * num_values
    assert document["systems"]["on_beat"]["beat_energy/at_beats"]["mean"] < 0.7
    assert document["systems"]["off_beat"]["beat_energy/at_beats"]["mean"] > 0.9
    row = next(row for row in rows if (row["system"], row["metric"]) == ("off_beat", SCORE))
    assert float(row["low"]) == document["systems"]["off_beat"][SCORE]["low"]
    assert int(row["n"]) == NUM_CLIPS
    with pytest.raises(ReportError, match="gone.json"):
        main(["table", str(tmp_path / "gone.json")])


def test_a_user_error_shows_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "score", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "evaluate.py"), run_name="__main__")
    assert str(stopped.value.code).startswith(f"evaluate.py: {tmp_path}: holds no clips")


@pytest.mark.parametrize("text", ["", "- class_path: musicinfuser.Nothing", "- sigma: 1", "a: b"])
def test_a_wrong_metrics_file_is_one_sentence(few, tmp_path, text):
    (tmp_path / "metrics.yaml").write_text(text)
    with pytest.raises(EvaluationError, match="metrics.yaml"):
        score(few, f"--metrics={tmp_path}/metrics.yaml", output=tmp_path / "metrics.json")


@pytest.mark.slow  # librosa compiles itself on first use
def test_tracked_beats_of_the_clip_and_of_the_whole_track(tmp_path, capsys):
    rate_hz = 32000
    beats = [0.1 + 0.5 * k for k in range(24)]
    track = click_track(beats, duration_seconds=12.5, rate_hz=rate_hz)
    write_wav(tmp_path / "song.wav", track, rate_hz=rate_hz)
    for system, delay in (("on_beat", 0.0), ("off_beat", 0.25)):
        folder = tmp_path / system
        # From second 3.2 of the track; its beats there are at 0.4 and every half second on.
        write_dance(folder / "short.mp4", phase_seconds=0.4 + delay)
        write_dance(
            folder / "own_sound.mp4",
            phase_seconds=0.4 + delay,
            num_frames=145,
            beats=[0.4 + 0.5 * k for k in range(9)],
        )
        (folder / "clips.csv").write_text(
            "file,system,track,track_offset_seconds\n"
            f"short.mp4,{system},../song.wav,3.2\nown_sound.mp4,{system},,\n"
            f"gone.mp4,{system},gone.wav,3.2\n"
        )
        shutil.copy(folder / "own_sound.mp4", folder / "gone.mp4")
    output = tmp_path / "metrics.json"
    main(["score", str(tmp_path / "on_beat"), str(tmp_path / "off_beat"), f"--output={output}"])
    document = json.loads(output.read_text())
    printed = capsys.readouterr().out
    assert (
        "Music beats of 2 clips: tracked in the named track, from second 3.2 of it on (1 file, "
        f"such as {tmp_path}/song.wav)." in printed
    )
    assert "Music beats of 2 clips: none, the file they lie in is not there." in printed
    assert "Music beats of 2 clips: tracked in the clip's own sound, since its list" in printed
    for clip in document["clips"]:
        if clip["file"] == "gone.mp4":
            # What its list names is never replaced by the clip's own sound.
            reason = clip["failures"]["beat_alignment"]
            assert "clips.csv, line 4: names the track gone.wav for gone.mp4, which" in reason
            assert clip["values"] == {}
            continue
        values = clip["values"]["beat_alignment"]
        assert clip["music_beats"] == ("track" if clip["file"] == "short.mp4" else "clip")
        assert values["num_music_beats"] >= 4
        if clip["system"] == "on_beat":
            assert values["score"] > 0.75
            assert values["z"] > 1.5
        else:
            assert values["score"] < 0.1
            assert values["z"] < 0


def test_frames_of_a_clip_are_all_read(few, tmp_path, brightness):
    frames = torch.zeros(31, 16, 16, 3, dtype=torch.uint8)
    frames[-1] = 255
    write_video(few / "flash.mp4", frames, fps=25.0)
    document = score(few, f"--metrics={brightness()}", output=tmp_path / "metrics.json")
    level = document["clips"][-1]["values"]["brightness"]["mean_level"]
    assert level == pytest.approx(255 / 31, abs=0.5)
