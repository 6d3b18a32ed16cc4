"""Tables for papers and programs: rows of dicts to LaTeX or CSV."""

import csv
import io
from collections.abc import Sequence

from musicinfuser.tables import NO_MARKS, Marks, Row, column_names, columns

_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "{}&%$#_"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}"}
)


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
    texts = columns(rows, num_digits, marks, latex_text, r"\textbf{%s}")
    if not texts:
        return ""
    kinds = "".join(
        "r" if any(isinstance(row.get(name), int | float) for row in rows) else "l"
        for name in texts
    )
    lines = [r"\begin{table*}[t]", r"\centering\small\setlength{\tabcolsep}{4pt}"]
    if caption is not None:
        lines.append(rf"\caption{{{latex_text(caption)}}}")
    fit = r"\ifdim\width>\textwidth\textwidth\else\width\fi"
    lines += [rf"\resizebox{{{fit}}}{{!}}{{%", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    spans, rules, first = [], "", 1
    for heading, width in marks.spans(list(texts)):
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(heading)}}}")
        rules += rf"\cmidrule(lr){{{first}-{first + width - 1}}}" if heading else ""
        first += width
    if rules:
        lines += [" & ".join(spans) + r" \\", rules]
    lines += [" & ".join(map(latex_text, texts)) + r" \\", r"\midrule"]
    for number, cells in enumerate(zip(*texts.values(), strict=True)):
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
