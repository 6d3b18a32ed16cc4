"""Every way in which a file of votes can be wrong is named, and no such row is counted."""

import pytest

from dance_eval.study.analysis import AnalysisOptions, check_raters
from dance_eval.study.key import StudyError
from dance_eval.study.votes import COLUMNS, read_votes, row_check, vote_files
from tests.dance_eval.study.conftest import QUESTIONS, vote_rows, write_votes

AT = {name: number for number, name in enumerate(COLUMNS)}


def always(score):
    return lambda item, question: score


def honest(rows, *, row=0, **changes):
    """The rows with one changed and its check made to agree."""
    changed = [list(fields) for fields in rows]
    for name, value in changes.items():
        changed[row][AT[name]] = value
    changed[row][-1] = row_check(changed[row][:-1])
    return changed


@pytest.fixture
def rows(study):
    return vote_rows(study[1], "1", always(1))


@pytest.fixture
def read(study, tmp_path):
    def run(*contents):
        files = [write_votes(tmp_path / f"{i}.csv", rows) for i, rows in enumerate(contents)]
        votes, problems = read_votes(files, study[1])
        return votes, [p for p in problems if p.kind != "no answers"]

    return run


def test_whole_files_have_no_problem(study, read, rows):
    votes, problems = read(rows, vote_rows(study[1], "2", always(0)))
    assert problems == []
    assert len(votes) == len(rows) + 4 * len(study[1].plan["2"])
    assert {vote.rater: vote.score for vote in votes} == {"1": 1.0, "2": 0.0}
    sides = [vote.is_left for vote in votes if vote.rater == "1"]
    assert {True, False} == set(sides)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"study": "00000000"}, "wrong study"),
        ({"rater": "9"}, "unknown rater"),
        ({"pair": "ffffffffff"}, "unknown pair"),
        ({"question": "beauty"}, "unknown question"),
        ({"choice": "both"}, "choice"),
        ({"order": "2"}, "edited"),
        ({"order": "x"}, "edited"),
        ({"seed": "6"}, "edited"),
        ({"left": "ffffffffff"}, "edited"),
        ({"right": "ffffffffff"}, "edited"),
        ({"ms": "-4"}, "schema"),
        ({"plays_left": "x"}, "schema"),
        ({"plays_right": "1.5"}, "schema"),
        ({"plays_left": "0"}, "unwatched"),
        ({"plays_right": "0"}, "unwatched"),
    ],
)
def test_rows_that_cannot_be_are_named_and_not_counted(read, rows, changes, kind):
    votes, problems = read(honest(rows, **changes))
    assert len(votes) == len(rows) - 1
    grave = [problem for problem in problems if problem.is_grave]
    assert [problem.kind for problem in grave] == [kind]
    assert grave[0].where.endswith("0.csv:2")


def test_a_row_changed_by_hand_is_found(read, rows):
    other = {"left": "right", "right": "left"}[rows[3][AT["choice"]]]
    rows[3][AT["choice"]] = other
    votes, problems = read(rows)
    assert len(votes) == len(rows) - 1
    assert [(p.kind, p.is_grave) for p in problems] == [("edited", True), ("missing", False)]


def test_a_file_sent_twice_counts_once_and_contradictions_not_at_all(read, rows):
    votes, problems = read(rows, rows[:6])
    assert len(votes) == len(rows)
    assert [p.kind for p in problems] == ["duplicate"] * 6
    assert not any(p.is_grave for p in problems)
    other = {"left": "right", "right": "left"}[rows[2][AT["choice"]]]
    votes, problems = read(rows, honest(rows, row=2, choice=other)[2:3])
    assert len(votes) == len(rows) - 1
    assert [(p.kind, p.is_grave) for p in problems] == [("conflict", True)]


def test_missing_and_unplayable_answers_are_counted(read, rows):
    votes, problems = read(honest(rows, choice="unplayable", plays_left="0")[:-5])
    assert len(votes) == len(rows) - 6
    assert [p.kind for p in problems] == ["unplayable", "missing"]
    assert problems[1].text.startswith(f"5 of {len(rows)} answers are missing, in 2 pairs")
    assert problems[1].where == "rater 1"


def test_a_forced_study_takes_no_ties(study, rows, tmp_path):
    from dataclasses import replace

    file = write_votes(tmp_path / "v.csv", honest(rows, choice="tie"))
    assert len(read_votes([file], study[1])[0]) == len(rows)
    votes, problems = read_votes([file], replace(study[1], is_forced=True))
    assert len(votes) == len(rows) - 1
    assert problems[0].kind == "choice"


def test_files_that_are_no_votes_are_named(study, tmp_path):
    texts = {
        "cut.csv": ",".join(COLUMNS) + "\na,b\n",
        "empty.csv": "",
        "excel.csv": ";".join(COLUMNS) + "\n",
        "header.csv": ",".join(COLUMNS) + "\n",
        "quote.csv": ",".join(COLUMNS) + '\n"a"b,c\n',
        "note.txt": "hello",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.csv").write_bytes(b"\xff\xfe\x00")
    files, others = vote_files([tmp_path])
    assert [problem.where[-8:] for problem in others] == ["note.txt"]
    votes, problems = read_votes(files, study[1])
    kinds = {problem.where.rpartition("/")[2]: problem.kind for problem in problems}
    assert votes == []
    assert kinds.pop("raters 1, 2, 3, 4") == "no answers"
    assert kinds == {
        "cut.csv:2": "schema",
        "empty.csv": "schema",
        "excel.csv": "schema",
        "header.csv": "empty",
        "latin.csv": "unreadable",
        "quote.csv:2": "schema",
    }
    with pytest.raises(StudyError, match="does not exist"):
        vote_files([tmp_path / "nowhere"])


def test_raters_who_fail_catches_and_repeats_are_found(study, read):
    key = study[1]

    def careless(item, question):
        """The spoilt clip, and another answer the second time."""
        return {"pair": 1, "catch": 0, "repeat": 0.5 if question == "music" else 1}[item.kind]

    votes, _ = read(vote_rows(key, "1", always(1)), vote_rows(key, "2", careless))
    good, bad = check_raters(votes, key, AnalysisOptions())
    num_repeats = sum(key.items[t.item].kind == "repeat" for t in key.plan["2"])
    assert (good["num_caught"], good["num_catches"]) == (4, 4)
    assert (good["num_same"], good["num_repeats"]) == (4 * num_repeats, 4 * num_repeats)
    assert (bad["num_caught"], bad["num_catches"]) == (0, 4)
    assert bad["num_same"] == 3 * num_repeats
    assert good["failed"] == []
    [_, bad] = check_raters(votes, key, AnalysisOptions(min_caught=0.75, min_same=0.8))
    assert bad["failed"] == ["catches", "repeats"]
    assert 0 < good["share_left"] < 1
    assert good["median_seconds"] == (len(key.plan["1"]) + 1) / 2


def test_catches_check_every_question(study):
    expected = [q for item in study[1].items.values() for q in item.expected]
    assert sorted(expected) == sorted(QUESTIONS)
