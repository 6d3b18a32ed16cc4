import csv
import io

import pytest

from dance_eval.report.paper_tables import (
    TOLERANCE,
    average,
    layouts,
    measured_rows,
    paper_rows,
    paper_text,
    published_tables,
)
from tests.scored_numbers import QUESTIONS, document, judged, record

TABLES = {table.key: table for table in published_tables()}
PAPER = [table for table in published_tables() if table.title.startswith("Table ")]
AVERAGES = [
    (table, row, column)
    for table in published_tables()
    for row in table.rows
    for column in table.columns
    if column.mean_of
]


def test_all_rows_of_the_papers_tables_are_there():
    assert [len(table.rows) for table in PAPER] == [10, 4, 4, 5, 6, 6]
    by_key = {table.key: {row.name: row for row in table.rows} for table in PAPER}
    ours = by_key["table1"]["Ours"].cells
    assert (ours["body_representation"], ours["overall"]) == (10.0, 8.14)
    assert by_key["table2"]["Mochi"].modality == "T+V"
    # The same measurement is printed in several tables.
    full = by_key["table6"]["Full (Ours)"].cells
    assert by_key["table5"]["Layer Adaptability"].cells == full
    assert by_key["table5"]["Evenly Distributed Layers"].cells == (
        by_key["table6"]["No ZICA Layer Selection"].cells
    )
    for key in ("table2", "table3"):
        cells = by_key[key]["MusicInfuser (Ours)"].cells
        assert cells == {name: full[name] for name in cells}


@pytest.mark.parametrize(
    "table, row, column",
    AVERAGES,
    ids=[f"{table.key}-{row.name}-{column.key}" for table, row, column in AVERAGES],
)
def test_printed_averages_follow_from_the_printed_columns(table, row, column):
    away = abs(average(column, row.cells) - row.cells[column.key])
    half_a_unit = 0.5 * 10**-table.num_digits + 1e-9
    if (row.name, column.key) in table.exceptions:
        # A tie, or more than rounding explains.
        assert away > half_a_unit - 2e-9
    else:
        assert away <= half_a_unit
    if table in PAPER:
        assert away <= TOLERANCE


def test_every_row_of_the_paper_has_its_averages_checked():
    checked = {(table.key, row.name) for table, row, _ in AVERAGES if table in PAPER}
    assert len(checked) == 35
    assert sum(len(table.exceptions) for table in PAPER) == 3


def test_overall_is_not_the_mean_of_the_two_averages():
    [table] = [table for table in PAPER if table.key == "table1"]
    cells = table.rows[0].cells
    [overall] = [column for column in table.columns if column.key == "overall"]
    assert average(overall, cells) == pytest.approx(8.14375)
    two = (cells["dance_quality_average"] + cells["video_quality_average"]) / 2
    assert abs(two - cells["overall"]) > TOLERANCE


def test_an_average_without_one_of_its_columns_is_none():
    [column] = [c for c in PAPER[2].columns if c.mean_of]
    cells = dict(PAPER[2].rows[0].cells)
    assert average(column, cells) == pytest.approx(27.7 / 3)
    assert average(column, cells | {"imaging_quality": None}) is None
    del cells["aesthetic_quality"]
    assert average(column, cells) is None


def test_our_averages_are_formed_as_the_papers():
    first = dict(
        zip(QUESTIONS, [8.0, 9.0, 7.0, 6.0, 5.0, 9.0, 8.0, 4.0, 1.0, 2.0, 6.0], strict=True)
    )
    second = {name: value + 1 for name, value in first.items()}
    scores = judged({"adapted": [first, second]}, judge="qwen")
    [row] = measured_rows(scores, TABLES["table1"])
    assert (row.system, row.source) == ("adapted", "measured by qwen")
    assert row.cells["dance_quality_average"].mean == pytest.approx(7.5)
    assert row.cells["video_quality_average"].mean == pytest.approx(7.5)
    assert row.cells["overall"].mean == pytest.approx(56 / 8 + 0.5)
    interval = row.cells["overall"]
    assert (interval.low, interval.high) == pytest.approx((7.0, 8.0))
    [row] = measured_rows(scores, TABLES["table4"])
    assert row.cells["prompt_align_average"].mean == pytest.approx(3.5)


def test_a_clip_without_some_answers_counts_where_it_can():
    whole = dict.fromkeys(QUESTIONS, 6.0)
    scores = judged({"adapted": [whole, whole | {"beat_alignment": 8.0}, {"beat_alignment": 1.0}]})
    [row] = measured_rows(scores, TABLES["table2"])
    assert row.cells["beat_alignment"].mean == 5.0
    assert row.cells["beat_alignment"].num_values == 3
    # The mean of the columns' means; its interval is of the clips that have all of them.
    assert row.cells["dance_quality_average"].mean == pytest.approx((4 * 6.0 + 5.0) / 5)
    assert row.cells["dance_quality_average"].num_values == 2
    rows, _ = paper_rows(TABLES["table2"], [row])
    assert rows[-1]["Clips"] == 2


def test_every_judge_has_rows_of_its_own_and_other_metrics_have_none():
    names = ("qwen", "llama")
    values = {judge: dict.fromkeys(QUESTIONS, 5.0) for judge in names}
    clip = record("base", 0, values | {"beat_alignment": {"score": 0.5}})
    sources = [row.source for row in measured_rows(document([clip]), TABLES["table6"])]
    assert sources == ["measured by qwen", "measured by llama"]
    without = document([record("base", 0, {"beat_alignment": {"score": 0.5}})])
    assert measured_rows(without, TABLES["table6"]) == []
    [row] = measured_rows(without, TABLES["singdance_100"])
    assert (row.source, row.cells["beat_align"].mean) == ("measured", 0.5)


def test_the_best_of_each_block_is_bold_and_ground_truth_is_not_compared():
    scores = judged({"Ground truth": [9], "base": [6], "adapted": [7]})
    table = TABLES["table2"]
    rows, marks = paper_rows(table, measured_rows(scores, table))
    assert marks.rules == {4}
    assert [row["Source"] for row in rows] == ["published"] * 4 + ["measured by judge"] * 3
    assert (1, "Beat Alignment") not in marks.bold
    # Printed: GT 8.95, MM-Diffusion 8.56, Mochi 8.34, MusicInfuser 8.89.
    assert {n for n, name in marks.bold if name == "Beat Alignment"} == {3, 6}
    one = measured_rows(judged({"base": [6]}), table)
    _, marks = paper_rows(table, one)
    assert all(number < 4 for number, _ in marks.bold)


def test_markdown_marks_what_is_published():
    text = paper_text(judged({"base": [6], "adapted": [7]}), form="markdown")
    assert text.count("### Table ") == 6
    lines = [line for line in text.splitlines() if line.startswith("| First Layers")]
    assert len(lines) == 2 and all("| published |" in " ".join(line.split()) for line in lines)
    assert "| adapted " in text and "measured by judge" in text
    assert "**10.00**" in text
    assert "MM-Diffusion, Video Quality Average: The printed columns average to 7.9467" in text


def test_intervals_are_shown_if_asked():
    scores = judged({"base": [5, 6, 7]})
    assert "6.00 [" not in paper_text(scores, form="markdown")
    assert "6.00 [5.00, 7.00]" in paper_text(scores, form="markdown", intervals=True)


def test_csv_holds_all_tables_under_one_header():
    text = paper_text(judged({"base": [6]}), form="csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    printed = [row for row in rows if row["Table"].startswith("Table ")]
    assert sum(row["Source"] == "published" for row in printed) == 35
    assert sum(row["Source"] == "measured by judge" for row in printed) == 6
    [row] = [r for r in rows if r["Table"] == "Table 5" and r["Model"] == "Layer Adaptability"]
    assert (float(row["Overall"]), row["Style Capture"]) == (8.33, "")


def test_latex_environments_and_braces_are_balanced():
    text = paper_text(judged({"50% {odd}_name": [6, 7], "b": [5, 7]}), form="latex", intervals=True)
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines).replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for sign in body:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    stack = []
    for part in body.split("\\")[1:]:
        if part.startswith("begin{"):
            stack.append(part[6 : part.index("}")])
        elif part.startswith("end{"):
            assert stack.pop() == part[4 : part.index("}")]
    assert stack == []
    assert text.count(r"\begin{tabular}") == len(TABLES)
    # Every line of a table has as many cells as its head has columns.
    width = None
    for line in lines:
        if line.startswith(r"\begin{tabular}"):
            width = len(line) - len(r"\begin{tabular}{}")
        elif line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
            assert line.replace(r"\&", "").count("&") == width - 1
    assert r"50\% \{odd\}\_name" in text


def test_tables_that_no_judge_filled_can_be_left_out():
    scores = document([record("base", 0, {"beat_alignment": {"score": 0.5}})])
    assert paper_text(scores, form="markdown", only_judged=True) == ""
    assert paper_text(scores, form="csv", only_judged=True) == ""
    assert "Table 1" in paper_text(scores, form="latex")


def scored_by(values):
    """Two systems with joints scored, and ground truth."""
    clips = []
    for number, (system, shift) in enumerate(
        (("ours", 0.0), ("base", -0.1), ("ground truth", 0.05))
    ):
        own = {m: {k: v + shift for k, v in found.items()} for m, found in values.items()}
        clips.append(record(system, number, own))
    return document(clips)


POSE = {
    "pose_beats_singdance": {"score": 0.4, "chance": 0.2},
    "pose_beats_mbcr": {"score": 0.3, "chance": 0.25},
    "flow_smoothness": {"score": 0.9, "shuffled": 0.5},
}


def test_one_papers_table_has_its_rows_ours_and_what_ours_are_by_chance():
    text = paper_text(scored_by(POSE), form="markdown", layout="singdance")
    assert text.count("### SingDance") == 2 and "### Table" not in text
    table = text[text.index("### SingDance (arXiv 2608.16220), 100") :]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()]
    lines = [line for line in lines if len(line) > 3]
    head = lines[0]
    assert [name for name in head if name.endswith("*")] == ["BeatAlign*", "MBCR*", "Smoothness*"]
    rows = {(line[0], line[1]): dict(zip(head, line, strict=True)) for line in lines[2:]}
    assert rows["SingDance", "published"]["BeatAlign*"] == "**0.3002**"
    assert rows["ours", "measured"]["BeatAlign*"] == "**0.4000**"
    assert rows["base", "measured"]["MBCR*"] == "0.2000"
    assert rows["ours", "by chance, or shuffled"]["BeatAlign*"] == "0.2000"
    assert rows["ours", "by chance, or shuffled"]["Smoothness*"] == "0.5000"
    # Ground truth has the highest value and is not the best.
    assert rows["ground truth", "measured"]["BeatAlign*"] == "0.4500"
    assert "* Smoothness: comparable only if ours is motion_smoothness" in table
    assert "BeatAlign is pose_beats_singdance/score" in table


def test_what_could_not_be_read_is_empty_and_low_distances_are_better():
    assert layouts() == ("musicinfuser", "wan_dancer", "singdance", "mace_dance", "x_dancer")
    values = {"fid_k": {"distance": 5.0, "shuffled": 9.0}, "div_k": {"distance": 3.0}}
    table = TABLES["mace_dance"]
    measured = measured_rows(scored_by(values), table)
    rows, marks = paper_rows(table, measured)
    assert rows[0].get("FID_k*") is None and rows[1]["FID_k*"] == 16.46
    by_name = {(row["Model"], row["Source"]): n for n, row in enumerate(rows)}
    best = by_name["base", "measured"]
    assert {n for n, name in marks.bold if name == "FID_k*"} == {best}
    assert not any(name == "DIV_k*" for _, name in marks.bold)
    text = paper_text(scored_by(values), form="latex", layout="x_dancer")
    assert "X-Dancer" in text and "507.000" in text and "Only these of its numbers" in text
    rows = list(
        csv.DictReader(io.StringIO(paper_text(scored_by(values), form="csv", layout="mace_dance")))
    )
    assert {row["Table"] for row in rows} == {"MACE-Dance (arXiv 2512.18181)"}
    with_reasons = [
        t for t in published_tables() if t.layout in ("singdance", "mace_dance", "x_dancer")
    ]
    for table in with_reasons:
        assert table.not_comparable.keys() <= {column.key for column in table.columns}
