"""Tables in the paper's layout: the published rows, and beside them what was measured here."""

from collections.abc import Sequence
from dataclasses import dataclass

from dance_eval.metrics.intervals import MeanInterval, bootstrap_mean
from dance_eval.metrics.report import Document
from dance_eval.report.paper_tables import (
    Column,
    PublishedTable,
    average,
    published_tables,
    reference_systems,
)
from musicinfuser.tables import Cell, Marks, Row, csv_table, latex_table, markdown_table

SOURCE, CLIPS = "Source", "Clips"
PUBLISHED = "published"
NOTE = (
    "Published rows are copied from the paper; they were scored on other clips. Scores of two "
    "judges are on two scales: one model of the paper has Overall 8.14 with one and 8.33 with the "
    "other. Bold is the best published and, apart from it, the best measured row; ground truth is "
    "not compared."
)


@dataclass(frozen=True)
class MeasuredRow:
    """A row of ours.

    Attributes:
        system: What made the clips.
        source: What scored them.
        cells: Mean and interval by column; columns that were not measured are missing.
    """

    system: str
    source: str
    cells: dict[str, MeanInterval]


def measured_rows(document: Document, table: PublishedTable) -> list[MeasuredRow]:
    """The rows that metrics.json has for a table.

    One per system and metric that has a value for every column that a judge fills; of tables
    without a judge, one per system with any of the columns.

    Args:
        document: The content of metrics.json.
        table: A published table.
    """
    systems: Document = document["systems"]
    names = dict.fromkeys(name for values in systems.values() for name in values)
    base = [column for column in table.columns if not column.mean_of]
    metrics = list(dict.fromkeys(name.partition("/")[0] for name in names))
    if not table.is_judged:
        metrics = [""]
    rows = []
    for metric in metrics:
        found = {
            column.key: name for column in base if (name := _value_name(column, metric, names))
        }
        if not found or (table.is_judged and len(found) < len(base)):
            continue
        source = f"measured by {metric}" if table.is_judged else "measured"
        for system, values in systems.items():
            cells = {
                key: MeanInterval(
                    mean=summary["mean"],
                    low=summary["low"],
                    high=summary["high"],
                    num_values=summary["n"],
                )
                for key, name in found.items()
                if (summary := values.get(name)) and summary["mean"] is not None
            }
            for column in table.columns:
                if column.mean_of:
                    mean = average(column, {key: cell.mean for key, cell in cells.items()})
                    if mean is not None:
                        cells[column.key] = _with_interval(mean, column, found, system, document)
            if cells:
                rows.append(MeasuredRow(system, source, cells))
    return rows


def _value_name(column: Column, metric: str, names: dict[str, None]) -> str | None:
    full = (name if "/" in name else f"{metric}/{name}" for name in column.values)
    return next((name for name in full if name in names), None)


def _with_interval(
    mean: float, column: Column, found: dict[str, str], system: str, document: Document
) -> MeanInterval:
    """The interval of an average, from the clips that have all of its columns."""
    per_clip = []
    for clip in document["clips"]:
        if clip["system"] == system:
            values = [_clip_value(clip, found[key]) for key in column.mean_of]
            numbers = [value for value in values if value is not None]
            if len(numbers) == len(values):
                per_clip.append(sum(numbers) / len(numbers))
    metric = found[column.mean_of[0]].partition("/")[0]
    interval = bootstrap_mean(
        per_clip,
        seed=document["seed"],
        name=f"{metric}/{column.key}",
        confidence=document["confidence"],
    )
    return MeanInterval(
        mean=mean, low=interval.low, high=interval.high, num_values=interval.num_values
    )


def _clip_value(clip: Document, name: str) -> float | None:
    metric, _, value = name.partition("/")
    return clip["values"].get(metric, {}).get(value)


def paper_rows(
    table: PublishedTable, measured: Sequence[MeasuredRow], *, intervals: bool = False
) -> tuple[list[Row], Marks]:
    """A table's rows, published ones first, and what to set in bold.

    Args:
        table: A published table.
        measured: Rows to put beside it.
        intervals: Whether measured cells say ``mean [low, high]``.
    """
    headings = {column.key: column.heading for column in table.columns}
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
    means = [{**row.cells} for row in table.rows]
    means += [
        {key: cell.mean for key, cell in ours.cells.items() if cell.mean is not None}
        for ours in measured
    ]
    names = [row.name for row in table.rows] + [ours.system for ours in measured]
    num_published = len(table.rows)
    bold: set[tuple[int, str]] = set()
    for block in (range(num_published), range(num_published, len(rows))):
        compared = [n for n in block if names[n].lower() not in reference_systems()]
        for key, heading in headings.items():
            printed = {
                n: round(means[n][key], table.num_digits) for n in compared if key in means[n]
            }
            if len(printed) > 1:
                best = max(printed.values())
                bold |= {(n, heading) for n, value in printed.items() if value == best}
    marks = Marks(
        bold=bold,
        groups={column.heading: column.group for column in table.columns},
        rules={num_published} if measured else set(),
    )
    return rows, marks


def paper_tables(
    document: Document, *, only_judged: bool
) -> list[tuple[PublishedTable, list[MeasuredRow]]]:
    """The published tables with our rows; if asked, only those that a judge of ours filled."""
    pairs = [(table, measured_rows(document, table)) for table in published_tables()]
    return [(t, rows) for t, rows in pairs if not only_judged or (rows and t.is_judged)]


def paper_text(
    document: Document, *, form: str, intervals: bool = False, only_judged: bool = False
) -> str:
    """The tables in the paper's layout.

    Args:
        document: The content of metrics.json.
        form: ``"markdown"``, ``"latex"`` (booktabs) or ``"csv"``; the last holds all tables, named
            in its first column.
        intervals: Whether measured cells say ``mean [low, high]``.
        only_judged: Leave out tables without a row that a judge of ours filled.

    Returns:
        Text that ends in a newline, or "" if no table is left.
    """
    parts: list[str] = []
    csv_rows: list[Row] = []
    for table, measured in paper_tables(document, only_judged=only_judged):
        rows, marks = paper_rows(table, measured, intervals=intervals)
        caption = f"{table.caption} Judge of the published rows: {table.judge}."
        headings = {column.key: column.heading for column in table.columns}
        notes = [f"{row}, {headings[key]}: {why}" for (row, key), why in table.exceptions.items()]
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
