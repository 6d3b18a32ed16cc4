import json

import pytest

from dance_eval.metrics.report import ReportError
from evaluate import main
from tests.scored_dances import Brightness, known_beats, score, write_dance


def test_what_is_scored_already_is_not_scored_again(few, tmp_path, brightness):
    output = tmp_path / "metrics.json"
    first = score(few, f"--metrics={brightness()}", output=output)
    assert Brightness.scored == ["clip0.mp4", "clip1.mp4"]
    assert score(few, f"--metrics={brightness()}", output=output) == first
    assert len(Brightness.scored) == 2
    write_dance(few / "clip1.mp4", num_frames=40)
    write_dance(few / "clip2.mp4", num_frames=40)
    score(few, f"--metrics={brightness()}", output=output)
    assert Brightness.scored[2:] == ["clip1.mp4", "clip2.mp4"]


@pytest.mark.parametrize("change", ["--seed=1", "--max_height=24", "other beats", "other settings"])
def test_changed_settings_are_scored_again(few, tmp_path, brightness, change):
    output = tmp_path / "metrics.json"
    score(few, f"--metrics={brightness()}", output=output)
    arguments = [change] if change.startswith("--") else []
    if change == "other beats":
        for index in range(2):
            known_beats(few / f"clip{index}.json", [1.0])
    init_args = {"failing": "x"} if change == "other settings" else {}
    score(few, f"--metrics={brightness(**init_args)}", *arguments, output=output)
    assert len(Brightness.scored) == 4


@pytest.mark.parametrize("change", ["--start_bpm=90", "--tightness=50", "--music_beats=truth"])
def test_changed_music_beats_are_scored_again(few, tmp_path, brightness, change):
    arguments = ["score", str(few), f"--metrics={brightness()}", f"--output={tmp_path}/m.json"]
    main(arguments)
    main([*arguments, change])
    assert len(Brightness.scored) == 4


def test_a_metric_with_new_values_is_scored_again(few, tmp_path, brightness, monkeypatch):
    output = tmp_path / "metrics.json"
    document = score(few, f"--metrics={brightness()}", output=output)
    for clip in document["clips"]:
        clip["values"]["brightness"] = {"another": 1.0}
    output.write_text(json.dumps(document))
    document = score(few, f"--metrics={brightness()}", output=output)
    assert document["systems"]["few"]["brightness/mean_level"]["n"] == 2
    assert len(Brightness.scored) == 4


def test_long_runs_are_saved_on_the_way(few, tmp_path, brightness, monkeypatch):
    output = tmp_path / "metrics.json"
    seen = []

    def look(self, clip):
        seen.append(json.loads(output.read_text())["clips"][0]["values"] if output.exists() else {})
        return {"mean_level": 1.0}

    monkeypatch.setattr(Brightness, "score_clip", look)
    monkeypatch.setattr("dance_eval.commands.score.SAVE_EVERY_SECONDS", -1.0)
    score(few, f"--metrics={brightness()}", output=output)
    assert seen == [{}, {"brightness": {"mean_level": 1.0}}]


def test_an_interrupted_run_keeps_what_it_had(few, tmp_path, brightness, monkeypatch):
    output = tmp_path / "metrics.json"
    level = Brightness.score_clip

    def stopped(self, clip):
        if clip.name == "clip1.mp4":
            raise KeyboardInterrupt
        return level(self, clip)

    with monkeypatch.context() as patch:
        patch.setattr(Brightness, "score_clip", stopped)
        with pytest.raises(KeyboardInterrupt):
            score(few, f"--metrics={brightness()}", output=output)
    document = json.loads(output.read_text())
    assert document["complete"] is False
    assert document["systems"]["few"]["brightness/mean_level"]["n"] == 1
    document = score(few, f"--metrics={brightness()}", output=output)
    assert Brightness.scored == ["clip0.mp4", "clip1.mp4"]
    assert document["complete"] is True


@pytest.mark.parametrize("value", [None, "0.9", "NaN"])
def test_a_record_that_was_edited_is_refused_before_anything_is_scored(
    few, tmp_path, brightness, value
):
    output = tmp_path / "metrics.json"
    score(few, f"--metrics={brightness()}", output=output)
    Brightness.scored.clear()
    edited = json.loads(output.read_text())
    edited["clips"][0]["values"]["brightness"]["mean_level"] = "HERE"
    text = json.dumps(edited).replace('"HERE"', "NaN" if value == "NaN" else json.dumps(value))
    output.write_text(text)
    write_dance(few / "new.mp4")
    with pytest.raises(ReportError, match="mean_level is|NaN is no number|nan is no number"):
        score(few, f"--metrics={brightness()}", output=output)
    # Nothing was scored, so nothing is lost, and the file is as it was.
    assert Brightness.scored == [] and output.read_text() == text
