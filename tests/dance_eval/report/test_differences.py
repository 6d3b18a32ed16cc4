from pathlib import Path

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.matching import clip_groups
from dance_eval.report.differences import paired_differences
from tests.scored_numbers import document, record


def entry(system, file, track, prompt="a dancer", start=0.0):
    return ClipEntry(
        Path(system), file, system, track=track, prompt=prompt, track_offset_seconds=start
    )


def files(entries):
    return [
        (group.track, {system: clip.file for system, clip in group.clips.items()})
        for group in clip_groups(entries)
    ]


def test_clips_of_one_track_start_and_prompt_stand_together():
    entries = [
        entry("base", "0", "x/b.wav"), entry("base", "1", "x/a.wav"),
        entry("base", "2", "x/a.wav", start=1.5), entry("base", "3", "x/a.wav", "a man"),
        entry("ours", "0", "y/a.mp3"), entry("ours", "1", "y/b.mp3"),
        entry("ours", "2", "y/a.mp3", start=1.5),
    ]  # fmt: skip
    assert files(entries) == [
        ("a", {"base": "1", "ours": "0"}),
        ("a", {"base": "3"}),
        ("a", {"base": "2", "ours": "2"}),
        ("b", {"base": "0", "ours": "1"}),
    ]


def test_repeats_of_a_cell_are_paired_in_their_order():
    entries = [entry(s, f"{s}{n}", "a.wav") for s in ("base", "ours") for n in range(2)]
    assert files(entries) == [
        ("a", {"base": "base0", "ours": "ours0"}),
        ("a", {"base": "base1", "ours": "ours1"}),
    ]


def test_a_recording_stands_in_every_cell_of_its_music_and_in_its_place():
    entries = [
        entry("recorded", "r", "a.wav", None), entry("ours", "0", "a.wav", "a man"),
        entry("ours", "1", "a.wav", "a woman"), entry("recorded", "s", "b.wav", None),
    ]  # fmt: skip
    found = files(entries)
    assert found == [
        ("a", {"recorded": "r", "ours": "0"}),
        ("a", {"recorded": "r", "ours": "1"}),
        ("b", {"recorded": "s"}),
    ]
    assert [list(clips) for _, clips in found][0] == ["recorded", "ours"]


def test_several_clips_without_a_prompt_share_the_cells_that_they_fit():
    ours = [entry("ours", prompt, "a.wav", prompt) for prompt in "pqr"]
    films = [entry("films", f"film{n}", "a.wav", None) for n in (1, 2)]
    assert files(ours + films) == [
        ("a", {"ours": "p", "films": "film1"}),
        ("a", {"ours": "q", "films": "film2"}),
        ("a", {"ours": "r", "films": "film1"}),
    ]
    # As `matched` pairs them; what finds no place stands alone, and none is lost.
    asked = entry("films", "asked", "a.wav", "p")
    assert files([*ours[:2], asked, *films]) == [
        ("a", {"films": "film2"}),
        ("a", {"ours": "p", "films": "asked"}),
        ("a", {"ours": "q", "films": "film1"}),
    ]


def test_differences_are_taken_within_cells():
    # Cells differ by far more than systems do.
    clips, entries = [], []
    for number in range(8):
        for system, more in (("base", 0.0), ("ours", 0.1), ("same", 0.0)):
            noise = 0.01 * (number * 3 % 5 - 2)
            values = {"m": {"level": 10.0 * number + more + noise * (system == "ours")}}
            values["m"]["equal"] = float(number)
            values["m"]["flat"] = float(number % 2) if system == "same" else 0.5
            clips.append(record(system, number, values))
            clip = clips[-1]
            entries.append(
                ClipEntry(
                    Path(clip["folder"]), clip["file"], system,
                    track=clip["track"], prompt=clip["prompt"],
                )
            )  # fmt: skip
    clips[0]["values"] = {}
    rows, marks = paired_differences(document(clips), clip_groups(entries))
    assert [row["value"] for row in rows] == ["m/level", "m/flat"]
    assert list(rows[0]) == ["value", "base minus ours", "base minus same", "ours minus same"]
    assert rows[0]["base minus ours"].startswith("-0.1")
    # The first cell has no value for one of the two.
    assert rows[0]["base minus same"] == "0.000 [0.000, 0.000]"
    assert marks.bold == {(0, "base minus ours"), (0, "ours minus same")}


def test_one_system_has_no_differences():
    clips = [record("base", 0, {"m": {"x": 1.0}})]
    rows, _ = paired_differences(document(clips), clip_groups([entry("base", "0.mp4", "0.wav")]))
    assert rows == []
