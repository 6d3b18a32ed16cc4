"""Tables: rows of dicts to Markdown (HTML: `html_pages`; LaTeX and CSV: `dance_eval.tables`)."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

Cell = str | int | float | None
Row = Mapping[str, Cell]


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


def columns(
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
    for name, column in columns(rows, num_digits, marks, escape, "**%s**").items():
        texts = [escape(name), *column]
        width = max(3, *map(len, texts))
        if any(isinstance(row.get(name), str) for row in rows):
            head, *texts = [text.ljust(width) for text in texts]
            aligned.append([head, "-" * width, *texts])
        else:
            head, *texts = [text.rjust(width) for text in texts]
            aligned.append([head, "-" * (width - 1) + ":", *texts])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*aligned, strict=True))
