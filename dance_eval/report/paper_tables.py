"""Tables in the paper's layout: the published rows, and beside them what was measured here.

The published rows lie in ``paper_tables.yaml``: Tables 1-6 of MusicInfuser (arXiv 2503.14505v2),
and tables of later systems that compare with it.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from dance_eval.metrics.intervals import MeanInterval, bootstrap_mean
from dance_eval.metrics.report import Document
from dance_eval.tables import csv_table, latex_table
from musicinfuser.tables import Cell, Marks, Row, markdown_table

DATA_FILE = Path(__file__).with_name("paper_tables.yaml")
TOLERANCE = 0.0101
"""How far an average of printed numbers may lie from the printed average, with room for rounding
of both to two digits."""
SOURCE, CLIPS = "Source", "Clips"
PUBLISHED = "published"
NULL_SOURCE = "by chance, or shuffled"
NULLS = ("chance", "shuffled", "to_other", "scrambled")
"""Values that say what a metric's first one is by chance: shifted music, shuffled frames, ..."""
NOTE = (
    "Published rows are copied from the paper; they were scored on other clips. Scores of two "
    "judges are on two scales: one model of the paper has Overall 8.14 with one and 8.33 with the "
    "other. A star marks columns of ours that do not compare for a further reason. Bold is the "
    "best published and, apart from it, the best measured row; ground truth is not compared."
)


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
        best: Whether high or low values are better, or neither.
    """

    key: str
    heading: str
    group: str
    values: Sequence[str] = ()
    mean_of: Sequence[str] = ()
    best: Literal["high", "low", "none"] = "high"


@dataclass(frozen=True)
class PublishedRow:
    """One printed row: its first cell, the model's inputs where printed, numbers by column."""

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
        layout: What `evaluate.py table --layout` calls the paper.
        not_comparable: Why our values of a column do not compare with the printed ones, by column.
        note: What else to say below it.
    """

    key: str
    title: str
    caption: str
    judge: str
    first_column: str
    columns: Sequence[Column]
    rows: Sequence[PublishedRow]
    exceptions: Mapping[tuple[str, str], str] = field(default_factory=dict)
    num_digits: int = 2
    layout: str = ""
    not_comparable: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def headings(self) -> dict[str, str]:
        """What is printed above each column; a star where our values do not compare."""
        return {c.key: c.heading + "*" * (c.key in self.not_comparable) for c in self.columns}

    @property
    def is_judged(self) -> bool:
        """Whether its columns are answers of a judge."""
        return any("/" not in name for column in self.columns for name in column.values)


@dataclass(frozen=True)
class MeasuredRow:
    """A row of ours: what made the clips, what scored them, and by column mean and interval.

    Columns that were not measured are missing.
    """

    system: str
    source: str
    cells: dict[str, MeanInterval]
    names: Mapping[str, str] = field(default_factory=dict)
    """Of the values in metrics.json, by column."""
    is_null: bool = False
    """Whether it holds what the system's values would be by chance."""


@functools.cache
def _data() -> dict[str, Any]:
    return yaml.safe_load(DATA_FILE.read_text(encoding="utf-8"))


@functools.cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables of the data file, in its order."""
    columns = {key: Column(key, **entry) for key, entry in _data()["columns"].items()}
    tables = []
    for key, entry in _data()["tables"].items():
        names = entry["columns"]
        fields = {
            "columns": [columns[name] for name in names],
            "rows": [
                PublishedRow(
                    row["row"],
                    row.get("modality"),
                    {
                        name: float(value)
                        for name, value in zip(names, row["values"], strict=True)
                        if value is not None
                    },
                )
                for row in entry["rows"]
            ],
            "exceptions": {
                (note["row"], note["column"]): note["reason"]
                for note in entry.get("exceptions", ())
            },
        }
        tables.append(PublishedTable(key=key, **(entry | fields)))
    return tuple(tables)


def average(column: Column, cells: Mapping[str, float | None]) -> float | None:
    """The mean of the columns that an average stands for, or None if one of them is missing.

    In the paper, Overall is the mean of the eight dance and video columns; the mean of the two
    averages would be another number.
    """
    numbers = [cells.get(key) for key in column.mean_of]
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known and len(known) == len(numbers) else None


def measured_rows(document: Document, table: PublishedTable) -> list[MeasuredRow]:
    """The rows that metrics.json has for a table.

    One per system and metric that has a value for every column that a judge fills; of tables
    without a judge, one per system with any of the columns.
    """
    systems: Document = document["systems"]
    names = dict.fromkeys(name for values in systems.values() for name in values)
    base = [column for column in table.columns if not column.mean_of]
    metrics = list(dict.fromkeys(name.partition("/")[0] for name in names))
    rows = []
    for metric in metrics if table.is_judged else [""]:
        found: dict[str, str] = {}
        for column in base:
            full = (name if "/" in name else f"{metric}/{name}" for name in column.values)
            if name := next((name for name in full if name in names), ""):
                found[column.key] = name
        if not found or (table.is_judged and len(found) < len(base)):
            continue
        for system, values in systems.items():
            cells = {
                key: MeanInterval(summary["mean"], summary["low"], summary["high"], summary["n"])
                for key, name in found.items()
                if (summary := values.get(name)) and summary["mean"] is not None
            }
            for column in table.columns:
                mean = average(column, {key: cell.mean for key, cell in cells.items()})
                if mean is not None:
                    interval = _interval_of_average(column, found, system, document)
                    cells[column.key] = replace(interval, mean=mean)
            if cells:
                source = f"measured by {metric}" if table.is_judged else "measured"
                rows.append(MeasuredRow(system, source, cells, found))
                nulls = {} if table.is_judged else _nulls(found, values)
                if nulls:
                    rows.append(MeasuredRow(system, NULL_SOURCE, nulls, is_null=True))
    return rows


def _nulls(found: Mapping[str, str], values: Document) -> dict[str, MeanInterval]:
    """By column, what a system's value would be by chance, where its metric says so."""
    cells = {}
    for key, name in found.items():
        metric = name.partition("/")[0]
        for null in NULLS:
            summary = values.get(f"{metric}/{null}")
            if summary and summary["mean"] is not None:
                cells[key] = MeanInterval(
                    summary["mean"], summary["low"], summary["high"], summary["n"]
                )
                break
    return cells


def _interval_of_average(
    column: Column, found: Mapping[str, str], system: str, document: Document
) -> MeanInterval:
    """From the clips that have all of its columns."""
    per_clip = []
    for clip in document["clips"]:
        if clip["system"] == system:
            values = {}
            for key in column.mean_of:
                metric, _, name = found[key].partition("/")
                values[key] = clip["values"].get(metric, {}).get(name)
            if (mean := average(column, values)) is not None:
                per_clip.append(mean)
    return bootstrap_mean(
        per_clip,
        seed=document["seed"],
        name=f"{found[column.mean_of[0]].partition('/')[0]}/{column.key}",
        confidence=document["confidence"],
    )


def paper_rows(
    table: PublishedTable, measured: Sequence[MeasuredRow], *, intervals: bool = False
) -> tuple[list[Row], Marks]:
    """A table's rows, published ones first, and what to set in bold.

    With ``intervals`` measured cells say ``mean [low, high]``.
    """
    headings = table.headings
    rows: list[Row] = []
    for row in table.rows:
        cells: dict[str, Cell] = {table.first_column: row.name}
        if row.modality is not None:
            cells["Modality"] = row.modality
        cells[SOURCE] = PUBLISHED
        rows.append(cells | {headings[key]: value for key, value in row.cells.items()})
    for ours in measured:
        cells = {table.first_column: ours.system, SOURCE: ours.source}
        for key, cell in ours.cells.items():
            cells[headings[key]] = cell.text(table.num_digits) if intervals else cell.mean
        # A mean over fewer clips than its neighbours must not hide among them.
        cells[CLIPS] = min(cell.num_values for cell in ours.cells.values())
        rows.append(cells)
    printed = [(row.name, dict(row.cells)) for row in table.rows]
    printed += [
        (ours.system, {key: c.mean for key, c in ours.cells.items() if c.mean is not None})
        for ours in measured
    ]
    references = {name.lower() for name in _data()["reference_systems"]}
    nulls = {len(table.rows) + n for n, ours in enumerate(measured) if ours.is_null}
    better = {column.key: column.best for column in table.columns}
    num_published = len(table.rows)
    bold: set[tuple[int, str]] = set()
    for block in (range(num_published), range(num_published, len(rows))):
        compared = {
            n: printed[n][1]
            for n in block
            if printed[n][0].lower() not in references and n not in nulls
        }
        for key, heading in headings.items():
            values = {
                n: round(means[key], table.num_digits)
                for n, means in compared.items()
                if key in means
            }
            if len(values) > 1 and better[key] != "none":
                best = (max if better[key] == "high" else min)(values.values())
                bold |= {(n, heading) for n, value in values.items() if value == best}
    marks = Marks(
        bold=bold,
        groups={headings[column.key]: column.group for column in table.columns},
        rules={num_published} if measured else set(),
    )
    return rows, marks


def layouts() -> tuple[str, ...]:
    """The papers whose tables are known, by the names that `evaluate.py table --layout` takes."""
    return tuple(dict.fromkeys(table.layout for table in published_tables()))


def paper_tables(
    document: Document, *, only_judged: bool, layout: str | None = None
) -> list[tuple[PublishedTable, list[MeasuredRow]]]:
    """The published tables with our rows: of one paper, or only those that a judge filled."""
    pairs = [
        (table, measured_rows(document, table))
        for table in published_tables()
        if layout in (None, table.layout)
    ]
    return [(t, rows) for t, rows in pairs if not only_judged or (rows and t.is_judged)]


def paper_text(
    document: Document,
    *,
    form: str,
    intervals: bool = False,
    only_judged: bool = False,
    layout: str | None = None,
) -> str:
    """The tables in the paper's layout.

    Args:
        document: The content of metrics.json.
        form: ``"markdown"``, ``"latex"`` (booktabs) or ``"csv"``; the last holds all tables, named
            in its first column.
        intervals: Whether measured cells say ``mean [low, high]``.
        only_judged: Leave out tables without a row that a judge of ours filled.
        layout: One of `layouts`: only the tables of that paper.

    Returns:
        Text that ends in a newline, or "" if no table is left.
    """
    parts: list[str] = []
    csv_rows: list[Row] = []
    for table, measured in paper_tables(document, only_judged=only_judged, layout=layout):
        rows, marks = paper_rows(table, measured, intervals=intervals)
        caption = f"{table.caption} Judge of the published rows: {table.judge}."
        notes = _notes(table, measured)
        if form == "csv":
            for row in rows:
                name = {"Table": table.title, "Model": row[table.first_column]}
                csv_rows.append(name | {k: v for k, v in row.items() if k != table.first_column})
        elif form == "latex":
            text = " ".join([f"{table.title}: {caption}", *notes])
            parts.append(latex_table(rows, num_digits=table.num_digits, marks=marks, caption=text))
        else:
            body = markdown_table(rows, num_digits=table.num_digits, marks=marks)
            below = "".join(f"\n{note}\n" for note in notes)
            parts.append(f"### {table.title}\n\n{caption}\n\n{body}{below}")
    if form == "csv":
        return csv_table(csv_rows) if csv_rows else ""
    if not parts:
        return ""
    return "\n".join([f"% {NOTE}\n" if form == "latex" else f"{NOTE}\n", *parts])


def _notes(table: PublishedTable, measured: Sequence[MeasuredRow]) -> list[str]:
    """What stands below a table."""
    headings = {column.key: column.heading for column in table.columns}
    notes = [f"{row}, {headings[key]}: {why}" for (row, key), why in table.exceptions.items()]
    notes += [f"* {headings[key]}: {why}." for key, why in table.not_comparable.items()]
    names = {key: name for row in measured for key, name in row.names.items()}
    if not table.is_judged and names:
        ours = ", ".join(f"{headings[key]} is {name}" for key, name in names.items())
        notes.append(f"Of ours, {ours}.")
    return notes + [table.note] * bool(table.note)
