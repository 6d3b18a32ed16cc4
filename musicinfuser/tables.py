"""The one writer of tables: rows of dicts to Markdown, LaTeX, HTML or CSV."""

import csv
import html
import io
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

Cell = str | int | float | None
Row = Mapping[str, Cell]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{sign: f"\\{sign}" for sign in "&%$#_"},
    }
)


@dataclass(frozen=True)
class Marks:
    """What a table shows beside its cells.

    Attributes:
        bold: Cells in bold, as (number of the row from 0, column).
        groups: Heading above neighbouring columns, by column; Markdown has no room for it.
        rules: Numbers of the rows above which a line is drawn; Markdown has no such lines.
    """

    bold: Collection[tuple[int, str]] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    rules: Collection[int] = ()

    def spans(self, names: Sequence[str]) -> list[tuple[str, int]]:
        """Headings above the columns and how many each spans; "" where there is none."""
        parts = itertools.groupby(names, key=lambda name: self.groups.get(name, ""))
        return [(heading, len(list(part))) for heading, part in parts]


NO_MARKS = Marks()


def column_names(rows: Sequence[Row]) -> list[str]:
    """All keys of the rows, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _written(cell: Cell, num_digits: int) -> str:
    if cell is None:
        return ""
    return f"{cell:.{num_digits}f}" if isinstance(cell, float) else str(cell)


def _number_columns(rows: Sequence[Row], names: Sequence[str]) -> set[str]:
    return {name for name in names if not any(isinstance(row.get(name), str) for row in rows)}


def markdown_table(rows: Sequence[Row], *, num_digits: int = 3, marks: Marks = NO_MARKS) -> str:
    """A GitHub-flavoured Markdown table; columns that hold numbers only are aligned right.

    Args:
        rows: One mapping per line; a missing key or None leaves the cell empty.
        num_digits: Digits after the point of floats.
        marks: What to set in bold.

    Returns:
        The table with a newline at its end; empty without rows.
    """
    names = column_names(rows)
    if not names:
        return ""

    def text(cell: Cell) -> str:
        return " ".join(_written(cell, num_digits).replace("|", "\\|").split())

    is_number = _number_columns(rows, names)
    lines = [[text(name) for name in names]]
    for number, row in enumerate(rows):
        cells = [text(row.get(name)) for name in names]
        bold = [(number, name) in marks.bold for name in names]
        lines.append([f"**{c}**" if b and c else c for c, b in zip(cells, bold, strict=True)])
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(names))]
    rule = [
        "-" * (width - 1) + ":" if name in is_number else "-" * width
        for name, width in zip(names, widths, strict=True)
    ]
    written = []
    for line in [lines[0], rule, *lines[1:]]:
        cells = [
            cell.rjust(width) if name in is_number else cell.ljust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
        ]
        written.append(f"| {' | '.join(cells)} |\n")
    return "".join(written)


def latex_text(text: str) -> str:
    """Plain text as LaTeX prints it: every sign that means something there is escaped."""
    return " ".join(text.translate(_LATEX).split())


def latex_table(
    rows: Sequence[Row],
    *,
    num_digits: int = 3,
    marks: Marks = NO_MARKS,
    caption: str | None = None,
) -> str:
    r"""A LaTeX table for the packages booktabs and graphicx, shrunk to the page if it is too wide.

    Columns with any number are aligned right.

    Args:
        rows: As for `markdown_table`.
        num_digits: Digits after the point of floats.
        marks: Bold cells, headings over columns, lines between rows.
        caption: Plain text above the table; None leaves it out.

    Returns:
        A ``table*`` environment with a newline at its end; empty without rows.
    """
    names = column_names(rows)
    if not names:
        return ""
    is_number = {n for n in names if any(isinstance(row.get(n), int | float) for row in rows)}
    lines = [r"\begin{table*}[t]", r"\centering\small\setlength{\tabcolsep}{4pt}"]
    if caption is not None:
        lines.append(rf"\caption{{{latex_text(caption)}}}")
    columns = "".join("r" if name in is_number else "l" for name in names)
    fit = r"\ifdim\width>\textwidth\textwidth\else\width\fi"
    lines += [rf"\resizebox{{{fit}}}{{!}}{{%", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    spans, rules, first = [], [], 1
    for heading, width in marks.spans(names):
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(heading)}}}")
        if heading:
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    if rules:
        lines += [" & ".join(spans) + r" \\", "".join(rules)]
    lines += [" & ".join(latex_text(name) for name in names) + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        if number in marks.rules:
            lines.append(r"\midrule")
        cells = []
        for name in names:
            text = latex_text(_written(row.get(name), num_digits))
            is_bold = (number, name) in marks.bold and text
            cells.append(rf"\textbf{{{text}}}" if is_bold else text)
        # A bracket at the start of a line would be read as an argument of the \\ before it.
        cells[0] = f"{{}}{cells[0]}" if cells[0].startswith("[") else cells[0]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def html_text(text: str) -> str:
    """Plain text as HTML that breaks between the words of a name, and never within an interval."""
    text = re.sub(r"(?<=\d), (?=[-+]?\d)", ",\N{NO-BREAK SPACE}", text)
    return re.sub(r"(?<=[_/])(?=\w)", "<wbr>", html.escape(text))


def html_table(rows: Sequence[Row], *, num_digits: int = 3, marks: Marks = NO_MARKS) -> str:
    """An HTML table with the cells of `markdown_table`; numbers carry the class ``number``.

    Bold cells are ``<b>``, rows below a line carry the class ``rule``.
    """
    names = column_names(rows)

    def cell(number: int, name: str, value: Cell) -> str:
        written = html_text(_written(value, num_digits))
        if (number, name) in marks.bold and written:
            written = f"<b>{written}</b>"
        kind = ' class="number"' if isinstance(value, int | float) else ""
        return f"<td{kind}>{written}</td>"

    head = "".join(f"<th>{html_text(name)}</th>" for name in names)
    above = ""
    if any(marks.groups.get(name) for name in names):
        spans = (
            f'<th colspan="{width}">{html.escape(heading)}</th>'
            for heading, width in marks.spans(names)
        )
        above = f'<tr class="groups">{"".join(spans)}</tr>\n'
    body = ""
    for number, row in enumerate(rows):
        kind = ' class="rule"' if number in marks.rules else ""
        cells = "".join(cell(number, name, row.get(name)) for name in names)
        body += f"<tr{kind}>{cells}</tr>\n"
    return f"<table>\n{above}<tr>{head}</tr>\n{body}</table>\n"


def csv_table(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header line; numbers at full precision, None empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, column_names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": markdown_table,
    "latex": latex_table,
    "csv": csv_table,
}
SUFFIXES = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}
