import copy
import json
from pathlib import Path

import pytest

from dance_eval.metrics.report import ReportError, compared_rows, read_report
from tests.conftest import ROOT
from tests.scored_numbers import judged

KEPT = ROOT / "assets" / "report" / "metrics.json"


@pytest.fixture
def document():
    whole = copy.deepcopy(judged({"a": [3, 4], "b": [5, 6]}))
    for clip in whole["clips"]:
        clip["keys"] = {"judge": "k"}
    return whole


def read(document, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(document) if isinstance(document, dict) else document)
    return read_report(path)


def test_files_that_score_wrote_are_read(document, tmp_path):
    assert read(document, tmp_path) == document
    assert len(read_report(KEPT)["clips"]) == 96 * len(read_report(KEPT)["systems"])


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (
            "clips 1 values judge beat_alignment", None,
            r"clips\[1\] \(1.mp4\).values.judge.beat_alignment is null: .* valid number",
        ),
        ("clips 1 values judge beat_alignment", "4", "beat_alignment is '4': .* valid number"),
        ("clips 1 values judge beat_alignment", True, "beat_alignment is True: .* valid number"),
        ("clips 0 values judge", None, "values.judge is null: .* valid dictionary"),
        ("clips 0 values", [], r"clips\[0\] \(0.mp4\).values is \[\]: .* valid dictionary"),
        ("clips 0 keys", {}, r"keys lacks 'judge', which has values"),
        ("clips 0 failures judge", 3, "failures.judge is 3: .* valid string"),
        ("clips 0 track_offset_seconds", "x", "track_offset_seconds is 'x': .* valid number"),
        ("clips 0 seed", 0.5, "seed is 0.5: .* valid integer"),
        ("clips 2 system", None, "system is null: .* valid string"),
        ("clips 2", None, r"clips\[2\] is null: .* valid dictionary"),
        ("clips", {}, "clips is {}: .* valid list"),
        (
            "systems a judge/beat_alignment mean", "high",
            "systems.a.judge/beat_alignment.mean is 'high': .* valid number",
        ),
        ("systems a judge/beat_alignment high", None, "has only a part of mean, low and high"),
        ("systems a judge/beat_alignment n", -1, "n is -1: .* greater than or equal to 0"),
        ("systems a judge/beat_alignment", 3, "judge/beat_alignment is 3: .* valid dictionary"),
        ("systems", None, "systems is null: .* valid dictionary"),
        ("confidence", 95, "confidence is 95: .* less than 1"),
        ("seed", None, "seed is null: .* valid integer"),
        ("complete", "yes", "complete is 'yes': .* valid boolean"),
    ],
)  # fmt: skip
def test_what_was_edited_is_named_by_its_place(document, tmp_path, keys, value, reason):
    *above, last = (int(key) if key.isdigit() else key for key in keys.split(" "))
    place = document
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(ReportError, match=rf"metrics.json: .*{reason}; mend it there"):
        read(document, tmp_path)


@pytest.mark.parametrize("keys", ["systems a judge/beat_alignment mean", "clips 0 system"])
def test_what_was_deleted_is_named(document, tmp_path, keys):
    *above, last = (int(key) if key.isdigit() else key for key in keys.split(" "))
    place = document
    for key in above:
        place = place[key]
    del place[last]
    with pytest.raises(ReportError, match=f"lacks '{last}'; mend it there"):
        read(document, tmp_path)


def test_what_its_reader_needs_must_be_there(document, tmp_path):
    del document["clips"][1]["file"]
    read(document, tmp_path)
    with pytest.raises(ReportError, match=r"clips\[1\] lacks 'file'; mend it there"):
        read_report(tmp_path / "metrics.json", clip_fields=["file"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused_with_their_line(document, tmp_path, number):
    text = json.dumps(document, indent=1).replace('"seed": 0', f'"seed": {number}')
    with pytest.raises(ReportError, match="metrics.json.*not JSON .*no number"):
        read(text, tmp_path)


def test_files_from_before_all_fields_are_read(document, tmp_path):
    for clip in document["clips"]:
        del clip["keys"], clip["folder"], clip["prompt"], clip["track_offset_seconds"]
    for values in document["systems"].values():
        for summary in values.values():
            del summary["num_failed"]
    assert read(document, tmp_path) == document


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ReportError, match="gone.json.*cannot be read .*evaluate.py score"):
        read_report(Path(tmp_path, "gone.json"))


def test_a_value_that_only_one_system_has_is_a_gap_in_the_table(document, tmp_path):
    whole = {row[next(iter(row))]: row for row in compared_rows(document)}
    del document["systems"]["a"]["judge/beat_alignment"]
    rows = {row[next(iter(row))]: row for row in compared_rows(read(document, tmp_path))}
    assert rows["judge/beat_alignment"].get("a") is None
    assert rows["judge/beat_alignment"]["b"] == whole["judge/beat_alignment"]["b"]
    document["systems"]["a"] = {}
    rows = {row[next(iter(row))]: row for row in compared_rows(read(document, tmp_path))}
    assert rows["judge: clips scored"] == {**rows["judge: clips scored"], "a": "0", "b": "2"}
