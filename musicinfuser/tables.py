"""The one writer of tables: rows of dicts to Markdown, LaTeX or CSV (HTML: `html_pages`)."""

import csv
import io
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

Cell = str | int | float | None
Row = Mapping[str, Cell]

_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "{}&%$#_"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}"}
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


def cell_text(cell: Cell, num_digits: int) -> str:
    """A cell with so many digits after the point of a float; None is empty."""
    if cell is None:
        return ""
    return f"{cell:.{num_digits}f}" if isinstance(cell, float) else str(cell)


def _columns(
    rows: Sequence[Row], num_digits: int, marks: Marks, escape: Callable[[str], str], bold: str
) -> dict[str, list[str]]:
    """The texts of every column; ``bold`` is a format."""
    columns: dict[str, list[str]] = {name: [] for name in column_names(rows)}
    for number, row in enumerate(rows):
        for name, column in columns.items():
            text = escape(cell_text(row.get(name), num_digits))
            column.append(bold % text if text and (number, name) in marks.bold else text)
    return columns


def markdown_table(rows: Sequence[Row], *, num_digits: int = 3, marks: Marks = NO_MARKS) -> str:
    """A GitHub-flavoured Markdown table; columns that hold numbers only are aligned right.

    Args:
        rows: One mapping per line; a missing key or None leaves the cell empty.
        num_digits: Digits after the point of floats.
        marks: What to set in bold.

    Returns:
        The table with a newline at its end; empty without rows.
    """

    def escape(text: str) -> str:
        return " ".join(text.replace("|", "\\|").split())

    aligned = []
    for name, column in _columns(rows, num_digits, marks, escape, "**%s**").items():
        texts = [escape(name), *column]
        width = max(3, *map(len, texts))
        if any(isinstance(row.get(name), str) for row in rows):
            head, *texts = [text.ljust(width) for text in texts]
            aligned.append([head, "-" * width, *texts])
        else:
            head, *texts = [text.rjust(width) for text in texts]
            aligned.append([head, "-" * (width - 1) + ":", *texts])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*aligned, strict=True))


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
    columns = _columns(rows, num_digits, marks, latex_text, r"\textbf{%s}")
    if not columns:
        return ""
    kinds = "".join(
        "r" if any(isinstance(row.get(name), int | float) for row in rows) else "l"
        for name in columns
    )
    lines = [r"\begin{table*}[t]", r"\centering\small\setlength{\tabcolsep}{4pt}"]
    if caption is not None:
        lines.append(rf"\caption{{{latex_text(caption)}}}")
    fit = r"\ifdim\width>\textwidth\textwidth\else\width\fi"
    lines += [rf"\resizebox{{{fit}}}{{!}}{{%", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    spans, rules, first = [], "", 1
    for heading, width in marks.spans(list(columns)):
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(heading)}}}")
        rules += rf"\cmidrule(lr){{{first}-{first + width - 1}}}" if heading else ""
        first += width
    if rules:
        lines += [" & ".join(spans) + r" \\", rules]
    lines += [" & ".join(map(latex_text, columns)) + r" \\", r"\midrule"]
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        lines += [r"\midrule"] * (number in marks.rules)
        # A bracket at the start of a line would be read as an argument of the \\ before it.
        lines.append("{}" * cells[0].startswith("[") + " & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def csv_table(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header line; numbers at full precision, None empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, column_names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


SUFFIXES = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}
