"""The published tables: their columns, how averages are formed, and the rows as printed.

The data lie in ``paper_tables.yaml``: Tables 1-6 of MusicInfuser (arXiv 2503.14505v2), and tables
of later systems that compare with it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

DATA_FILE = Path(__file__).with_name("paper_tables.yaml")
TOLERANCE = 0.0101
"""How far an average of printed numbers may lie from the printed average, with room for rounding
of both to two digits."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Its name in the data file.
        heading: What is printed above it.
        group: What is printed above it and its neighbours, or "".
        values: Names of its value in metrics.json; the first that is there counts. Without a slash
            they are values of a judge's metric.
        mean_of: For an average, the columns it is the mean of; else empty.
    """

    key: str
    heading: str
    group: str
    values: tuple[str, ...] = ()
    mean_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedRow:
    """One printed row.

    Attributes:
        name: Its first cell.
        modality: Inputs of the model, where the table says so.
        cells: The numbers by column.
    """

    name: str
    modality: str | None
    cells: Mapping[str, float]


@dataclass(frozen=True)
class PublishedTable:
    """One printed table.

    Attributes:
        key: Its name in the data file.
        title: Such as ``Table 1``.
        caption: What it shows, in our words.
        judge: What gave the scores, as far as it is known.
        first_column: Heading of the names.
        columns: Its columns from left to right.
        rows: As printed.
        exceptions: Why an average is not what its printed columns round to, by (row, column).
        num_digits: Digits after the point.
    """

    key: str
    title: str
    caption: str
    judge: str
    first_column: str
    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...]
    exceptions: Mapping[tuple[str, str], str]
    num_digits: int

    @property
    def is_judged(self) -> bool:
        """Whether its columns are answers of a judge."""
        return any("/" not in name for column in self.columns for name in column.values)


def average(column: Column, cells: Mapping[str, float | None]) -> float | None:
    """The mean of the columns that an average stands for, or None if one of them is missing.

    In the paper, Overall is the mean of the eight dance and video columns; the mean of the two
    averages would be another number.

    Args:
        column: An average.
        cells: Numbers by the keys of the other columns.
    """
    present = [cells.get(key) for key in column.mean_of]
    numbers = [number for number in present if number is not None]
    if not numbers or len(numbers) < len(present):
        return None
    return sum(numbers) / len(numbers)


@functools.cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables of the data file, in its order."""
    data = yaml.safe_load(DATA_FILE.read_text(encoding="utf-8"))
    columns = {
        key: Column(
            key,
            entry["heading"],
            entry["group"],
            tuple(entry.get("values", ())),
            tuple(entry.get("mean_of", ())),
        )
        for key, entry in data["columns"].items()
    }
    tables = []
    for key, entry in data["tables"].items():
        names = entry["columns"]
        rows = tuple(
            PublishedRow(
                row["row"],
                row.get("modality"),
                dict(zip(names, map(float, row["values"]), strict=True)),
            )
            for row in entry["rows"]
        )
        tables.append(
            PublishedTable(
                key=key,
                title=entry["title"],
                caption=entry["caption"],
                judge=entry["judge"],
                first_column=entry["first_column"],
                columns=tuple(columns[name] for name in names),
                rows=rows,
                exceptions={
                    (note["row"], note["column"]): note["reason"]
                    for note in entry.get("exceptions", ())
                },
                num_digits=entry.get("num_digits", 2),
            )
        )
    return tuple(tables)


@functools.cache
def reference_systems() -> frozenset[str]:
    """Names, in lower case, of what others are measured against; never the best of a column."""
    data = yaml.safe_load(DATA_FILE.read_text(encoding="utf-8"))
    return frozenset(name.lower() for name in data["reference_systems"])
