import csv
import io

from dance_eval.tables import csv_table, latex_table
from musicinfuser.html_pages import html_table
from musicinfuser.tables import Marks, markdown_table

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


def test_bold_cells_stay_in_their_columns():
    marks = Marks(bold={(0, "score"), (1, "score")})
    lines = markdown_table(ROWS, marks=marks).splitlines()
    assert lines[2] == "| ours\\|new | **0.307** |  96 |           |"
    assert lines[3] == "| base      |           |   4 | two lines |"
    assert '<td class="number"><b>0.307</b></td>' in html_table(ROWS, marks=marks)


def test_latex_is_a_table_of_booktabs_with_everything_escaped():
    rows = [
        {"a_b": "50% & {x}~^\\ #1 $<", "n": 3, "score": 0.5},
        {"a_b": "[bracket]", "n": None, "score": "0.500 [0.400, 0.600]"},
    ]
    marks = Marks(bold={(0, "score")}, groups={"n": "G & co", "score": "G & co"}, rules={1})
    text = latex_table(rows, marks=marks, caption="5 % of_all", num_digits=2)
    assert text == (
        "\\begin{table*}[t]\n"
        "\\centering\\small\\setlength{\\tabcolsep}{4pt}\n"
        "\\caption{5 \\% of\\_all}\n"
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "\\multicolumn{1}{c}{} & \\multicolumn{2}{c}{G \\& co} \\\\\n"
        "\\cmidrule(lr){2-3}\n"
        "a\\_b & n & score \\\\\n"
        "\\midrule\n"
        "50\\% \\& \\{x\\}\\textasciitilde{}\\textasciicircum{}\\textbackslash{} \\#1 "
        "\\$\\textless{} & 3 & \\textbf{0.50} \\\\\n"
        "\\midrule\n"
        "{}[bracket] &  & 0.500 [0.400, 0.600] \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}}\n"
        "\\end{table*}\n"
    )
    assert latex_table([]) == ""


def test_headings_above_columns_and_lines_between_rows_are_in_html():
    marks = Marks(groups={"score": "G<", "n": "G<"}, rules={1})
    text = html_table(ROWS, marks=marks)
    assert '<th colspan="1"></th><th colspan="2">G&lt;</th><th colspan="1"></th>' in text
    assert text.count('<tr class="rule">') == 1
    assert text.index('class="rule"') > text.index("ours|new")
