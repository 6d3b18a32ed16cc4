import csv
import io

from musicinfuser.tables import csv_table, html_table, markdown_table

ROWS = [
    {"system": "ours|new", "score": 0.30749, "n": 96},
    {"system": "base", "score": None, "n": 4, "note": "two\nlines"},
]


def test_markdown_aligns_numbers_right_and_escapes_bars():
    assert markdown_table(ROWS) == (
        "| system    | score |   n | note      |\n"
        "| --------- | ----: | --: | --------- |\n"
        "| ours\\|new | 0.307 |  96 |           |\n"
        "| base      |       |   4 | two lines |\n"
    )
    assert "0.31 " in markdown_table(ROWS, num_digits=2)
    assert markdown_table([]) == ""


def test_csv_keeps_full_precision_and_reads_back():
    rows = list(csv.DictReader(io.StringIO(csv_table(ROWS))))
    assert rows == [
        {"system": "ours|new", "score": "0.30749", "n": "96", "note": ""},
        {"system": "base", "score": "", "n": "4", "note": "two\nlines"},
    ]


def test_html_marks_numbers_and_escapes():
    assert html_table([{"system": "<ours>", "score": 0.30749, "n": 96}, {"system": None}]) == (
        "<table>\n<tr><th>system</th><th>score</th><th>n</th></tr>\n"
        '<tr><td>&lt;ours&gt;</td><td class="number">0.307</td><td class="number">96</td></tr>\n'
        "<tr><td></td><td></td><td></td></tr>\n</table>\n"
    )
