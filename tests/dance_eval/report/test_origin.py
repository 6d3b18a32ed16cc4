from dance_eval.commands import report
from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.consistency import SubjectConsistency
from dance_eval.metrics.report import compared_rows
from dance_eval.report.origin import described
from dance_eval.report.page import write_page
from tests.scored_numbers import document, record


def page_of(found, path):
    """The text of a page without players."""
    write_page(found, [], path, report.parser().parse_args(["a folder"]), command="")
    return path.read_text()


def clips(*num_frames):
    return [
        record("<ours>", number, {"m": {"x": 1.0}}) | {"num_frames": count, "fps": 30.0}
        for number, count in enumerate(num_frames)
    ]


def test_odd_lengths_are_named_and_only_then(tmp_path):
    text = page_of(document(clips(31, 31, 40)), tmp_path / "page.html")
    assert "<li>2 of 31 frames at 30 fps, such as &lt;ours&gt;: 0.mp4</li>" in text
    assert "<li>1 of 40 frames at 30 fps, such as &lt;ours&gt;: 2.mp4</li>" in text
    text = page_of(document(clips(31, 31, 31)), tmp_path / "page.html")
    assert "Clips differ" not in text and "None: every metric scored every clip." in text


def test_the_table_of_scores_has_what_there_is_and_counts_what_is_missing():
    found = document([*clips(31, 31), record("base", 0, {}, failures={"m": "no sound"})])
    nothing = {"mean": None, "low": None, "high": None, "n": 0, "num_failed": 0}
    found["systems"]["base"]["m/x"]["num_failed"] = 1
    for values in found["systems"].values():
        values |= {"m/never": nothing, "still/y": nothing | {"mean": 2.0, "n": 2}}
    found["systems"]["base"]["still/y"]["n"] = 1
    rows = {row.pop("mean [95% interval]"): list(row.values()) for row in compared_rows(found)}
    assert rows == {
        "clips": ["2", "1"],
        "m/x": ["1.000 [1.000, 1.000]", None],
        "m: clips scored": ["2", "0"],
        "m: clips failed": ["0", "1"],
        "still/y": ["2.000", "2.000"],
    }


def test_values_are_told_in_the_words_of_their_classes(tmp_path):
    summary, values = described(SubjectConsistency)
    assert summary.startswith("Whether the subject stays itself")
    assert [line.partition(":")[0] for line in values.splitlines()] == [
        "score", "to_first", "to_previous", "shuffled"
    ]  # fmt: skip
    # Those of a base class, where a class says nothing of its own.
    _, values = described(BeatAlignment)
    assert {line.partition(":")[0] for line in values.splitlines()} >= {"score", "chance", "z"}
    place = "dance_eval.metrics.beat_alignment.BeatAlignment"
    specs = [{"class_path": place, "init_args": {"name": name}} for name in ("one", "<two>")]
    found = document(clips(31))
    without = page_of(found, tmp_path / "page.html")
    text = page_of(found | {"metrics": specs}, tmp_path / "page.html")
    assert "<h4>one, &lt;two&gt;</h4>" in text
    assert text.count("<pre>") == without.count("<pre>") + 1
    assert "What the values mean" not in without
