"""The figures' own arithmetic; what they call is tested where it lives."""

import json

import pytest

from small_world.experiments import figures, zica_time
from small_world.experiments.commands import call, keep_settings


def clip(system, track, **values):
    return {"system": system, "track": f"music/{track}.wav", "values": {"m": values}}


def document(*clips):
    return {"systems": {c["system"]: {} for c in clips}, "clips": list(clips)}


def test_seeds_are_averaged_per_clip_before_anything_else():
    found = figures.per_clip(
        document(
            clip("adapted", "a", score=0.2), clip("adapted", "a", score=0.6),
            clip("adapted", "b", score=0.8), clip("base", "a", score=0.1), clip("base", "b"),
        ),
        "m/score",
    )  # fmt: skip
    assert found == {"adapted": {"a": pytest.approx(0.4), "b": 0.8}, "base": {"a": 0.1}}


def test_rows_give_means_with_intervals_over_clips(monkeypatch):
    monkeypatch.setattr(figures, "MEASURED", {"beat": "m/score", "absent": "m/other"})
    clips = [clip("adapted", f"{k}", score=float(k % 2)) for k in range(40)]
    rows, values = figures.table_rows({"the clip": document(*clips)})
    summary = values["adapted | beats of the clip"]["beat"]
    assert summary["mean"] == 0.5 and summary["n"] == 40
    assert 0.3 < summary["low"] < 0.5 < summary["high"] < 0.7
    assert rows[0]["beat"] == f"0.500 [{summary['low']:.3f}, {summary['high']:.3f}]"
    assert rows[0]["absent"] is None and rows[0]["clips"] == 40


def test_tempo_is_followed_if_frequency_changes_as_much():
    def at(factor, truth_factor, name=""):
        clips = [(f"ground truth{name}", truth_factor), ("adapted", factor)]
        return {
            "systems": {},
            "clips": [
                {
                    "system": system, "track": f"{k}.wav", "folder": f"videos/seed{seed}",
                    "values": {"pose_frequency": {"hertz": (1.5 + 0.1 * k + seed) * scale}},
                }
                for system, scale in clips
                for k in range(5)
                for seed in range(2)
            ],
        }  # fmt: skip

    documents = {
        "1": at(1.0, 1.0),
        "0.75": at(1.0, 0.75, " at tempo 0.75"),
        "1.25": at(1.2, 1.25, " at tempo 1.25"),
    }
    rows, values = figures.tempo_rows(documents)
    found = {(row["system"], row["tempo"]): row for row in rows}
    assert found["ground truth", "0.75"]["median ratio / tempo"] == "1.000 [1.000, 1.000]"
    assert found["ground truth", "1.25"]["within 10 %"].startswith("1.000")
    assert values["adapted | tempo 0.75"]["median ratio / tempo"]["median"] == pytest.approx(4 / 3)
    assert values["adapted | tempo 0.75"]["within 10 %"]["mean"] == 0.0
    assert values["adapted | tempo 1.25"]["within 10 %"]["mean"] == 1.0
    assert (found["adapted", "1.25"]["clips"], found["adapted", "1.25"]["seeds"]) == (5, 2)


def test_swapped_beats_are_those_of_the_clip_that_is_heard(tmp_path):
    (tmp_path / "truth").mkdir()
    for name, beats in (("a", [0.1, 0.6]), ("b", [0.3])):
        text = json.dumps({"beats_seconds": beats, "bpm": 120})
        (tmp_path / "truth" / f"{name}.json").write_text(text)
    (tmp_path / "other.csv").write_text(
        "track,prompt,seed,heard\nmusic/a.wav,x,0,music/b.wav\nmusic/b.wav,x,1,music/a.wav\n"
    )
    figures.swap_beats(tmp_path)
    swapped = json.loads((tmp_path / "truth_of_another" / "a.json").read_text())
    assert swapped == {"beats_seconds": [0.3]}


def test_a_step_is_done_once_and_a_failed_one_shows_its_log(tmp_path):
    done = tmp_path / "made" / "it"
    code = f"import pathlib; p = pathlib.Path({str(done)!r}); p.write_text('x' * (1 + p.exists()))"
    figures.call("-c", code, done=done)
    figures.call("-c", code, done=done)
    assert done.read_text() == "x"
    with pytest.raises(SystemExit, match="out of luck"):
        figures.call("-c", "raise SystemExit('out of luck')", done=tmp_path / "never")


def test_gaps_are_shown_in_percent_with_the_range_of_the_seeds():
    runs = [
        {f"val/music_gap_sigma_{s}": gap for s in zica_time.SIGMAS} | {"val/loss": 0.3}
        for gap in (0.01, 0.03)
    ]
    (row,) = zica_time.rows({"aligned": runs})
    assert row["gap at 0.80, %"] == "2.0 (1.0 to 3.0)"
    assert row["seeds"] == 2


def test_a_command_is_done_once(tmp_path):
    done, made = tmp_path / "done", tmp_path / "made"
    program = f"open({str(made)!r}, 'a').write('x')"
    call("-c", program, done=done)
    call("-c", program, done=done)
    assert made.read_text() == "x"
    call("-c", program, done=done, again=True)
    assert made.read_text() == "xx"
    with pytest.raises(SystemExit, match=r"(?s)see .*other\.log.*no such thing"):
        call("-c", "raise ValueError('no such thing')", done=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_results_of_other_settings_are_not_taken_for_these(tmp_path):
    keep_settings(tmp_path, {"steps": 300, "cache": tmp_path})
    keep_settings(tmp_path, {"steps": 300, "cache": tmp_path})
    with pytest.raises(SystemExit, match="steps: 300 there, 400 here"):
        keep_settings(tmp_path, {"steps": 400, "cache": tmp_path})
