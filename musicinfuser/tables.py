"""The one writer of tables: rows of dicts to Markdown, CSV or HTML."""

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence

Cell = str | int | float | None
Row = Mapping[str, Cell]


def column_names(rows: Sequence[Row]) -> list[str]:
    """All keys of the rows, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def markdown_table(rows: Sequence[Row], *, num_digits: int = 3) -> str:
    """A GitHub-flavoured Markdown table; columns that hold numbers only are aligned right.

    Args:
        rows: One mapping per line; a missing key or None leaves the cell empty.
        num_digits: Digits after the point of floats.

    Returns:
        The table with a newline at its end; empty without rows.
    """
    names = column_names(rows)
    if not names:
        return ""

    def text(cell: Cell) -> str:
        if cell is None:
            return ""
        written = f"{cell:.{num_digits}f}" if isinstance(cell, float) else str(cell)
        return " ".join(written.replace("|", "\\|").split())

    is_number = {name: not any(isinstance(row.get(name), str) for row in rows) for name in names}
    lines = [[text(name) for name in names]]
    lines += [[text(row.get(name)) for name in names] for row in rows]
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(names))]
    rule = [
        "-" * (width - 1) + ":" if is_number[name] else "-" * width
        for name, width in zip(names, widths, strict=True)
    ]
    written = []
    for line in [lines[0], rule, *lines[1:]]:
        cells = [
            cell.rjust(width) if is_number[name] else cell.ljust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
        ]
        written.append(f"| {' | '.join(cells)} |\n")
    return "".join(written)


def html_table(rows: Sequence[Row], *, num_digits: int = 3) -> str:
    """An HTML table with the cells of `markdown_table`; numbers carry the class ``number``."""
    names = column_names(rows)

    def cell(value: Cell) -> str:
        if isinstance(value, int | float):
            written = f"{value:.{num_digits}f}" if isinstance(value, float) else str(value)
            return f'<td class="number">{written}</td>'
        return f"<td>{html.escape(value or '')}</td>"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = ["".join(cell(row.get(name)) for name in names) for row in rows]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<table>\n<tr>{head}</tr>\n{body}</table>\n"


def csv_table(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header line; numbers at full precision, None empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, column_names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": markdown_table,
    "csv": csv_table,
}
