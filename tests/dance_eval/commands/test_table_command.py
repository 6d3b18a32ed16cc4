import csv
import json

import pytest

from dance_eval.loading import EvaluationError
from evaluate import main
from tests.scored_numbers import document, judged, record


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(judged({"base": [5, 6, 7], "adapted": [8, 8, 9]})))
    return path


def test_what_a_judge_scored_is_printed_beside_the_papers_rows(scores, capsys):
    main(["table", str(scores)])
    printed = capsys.readouterr().out
    assert printed.startswith("| mean [95% interval] ")
    assert printed.count("### Table ") == 6
    assert "SingDance" not in printed
    [ours] = [line for line in printed.splitlines() if line.startswith("| adapted ")][:1]
    assert [cell.strip(" *") for cell in ours.split("|")[2:5]] == [
        "measured by judge",
        "8.33",
        "8.33",
    ]


def test_layouts_can_be_asked_for_one_by_one(scores, capsys):
    main(["table", str(scores), "--layout=metrics", "--format=latex"])
    alone = capsys.readouterr().out
    assert alone.startswith(r"\begin{table*}") and alone.count(r"\begin{tabular}") == 1
    assert "6.000 [5.000, 7.000]" in alone
    main(["table", str(scores), "--layout=paper", "--format=csv", "--intervals=true"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    [row] = [row for row in rows if (row["Table"], row["Model"]) == ("Table 1", "base")]
    assert (row["Overall"], row["Clips"]) == ("6.00 [5.00, 7.00]", "3")


def test_the_form_follows_the_name_of_the_output(scores, tmp_path, capsys):
    file = tmp_path / "out" / "both.tex"
    main(["table", str(scores), f"--output={file}"])
    assert file.read_text() == capsys.readouterr().out
    assert file.read_text().count(r"\begin{table*}") > 6
    with pytest.raises(EvaluationError, match=r"ends in \.docx; name it \.md, \.tex, \.csv"):
        main(["table", str(scores), f"--output={tmp_path / 'table.docx'}"])


def test_a_folder_gets_every_form_of_both_layouts(scores, tmp_path):
    main(["table", str(scores), f"--output={tmp_path / 'out'}"])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(
        f"{stem}{suffix}"
        for stem in ("table", "paper_tables")
        for suffix in (".md", ".tex", ".csv")
    )
    assert "First Layers" in (tmp_path / "out" / "paper_tables.md").read_text()


def test_without_a_judge_only_our_values_are_shown(tmp_path, capsys):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(document([record("base", 0, {"beat_alignment": {"score": 0.5}})])))
    main(["table", str(path)])
    assert "published" not in capsys.readouterr().out
    main(["table", str(path), "--layout=paper"])
    assert capsys.readouterr().out.count("### Table ") == 6


def test_one_papers_table_of_several_files_of_scores(tmp_path, capsys):
    """What joints say and what pictures say, scored apart."""
    paths = []
    for name, values in (
        ("pose", {"pose_beats_singdance": {"score": 0.5, "chance": 0.25}}),
        ("pictures", {"aesthetic_quality": {"score": 0.6}}),
    ):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(document([record("base", 0, values)])))
    main(["table", *map(str, paths), "--layout=singdance"])
    printed = capsys.readouterr().out
    [row, null] = [line for line in printed.splitlines() if line.startswith("| base")][:2]
    assert "0.5000" in row and "0.6000" in row and "0.2500" in null
    assert "Table 1" not in printed and "mean [95%" not in printed
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps(document([record("base", 0, {"aesthetic_quality": {"score": 0.7}})]))
    )
    with pytest.raises(EvaluationError, match="another aesthetic_quality/score of 'base'"):
        main(["table", *map(str, [*paths, other]), "--layout=singdance"])
    main(["table", str(paths[0]), "--layout=x_dancer"])
    assert "| X-Dancer" in capsys.readouterr().out
