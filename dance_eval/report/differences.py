"""Which values tell systems apart: paired differences over the cells that both made."""

import itertools
from collections.abc import Sequence

from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import ClipGroup
from dance_eval.metrics.report import Document
from musicinfuser.tables import Marks, Row

VALUE = "value"


def clip_records(document: Document) -> dict[tuple[str, str], Document]:
    """The records of metrics.json by (folder, file)."""
    return {(clip["folder"], clip["file"]): clip for clip in document["clips"]}


def paired_differences(document: Document, cells: Sequence[ClipGroup]) -> tuple[list[Row], Marks]:
    """Mean difference of every value between every two systems, with its bootstrap interval.

    Both clips of a pair are of one cell, so what the cell itself does to the value falls out.

    Args:
        document: The content of metrics.json.
        cells: Its clips by cell.

    Returns:
        One row per value and one column per pair of systems, as ``a minus b``; bold are differences
        whose interval leaves out 0. No rows for values that differ in no cell, or for a single
        system.
    """
    records = clip_records(document)
    systems = list(document["systems"])
    names = dict.fromkeys(name for values in document["systems"].values() for name in values)
    rows: list[Row] = []
    bold: set[tuple[int, str]] = set()
    for name in names:
        row: dict[str, str | None] = {VALUE: name}
        differs = False
        for first, second in itertools.combinations(systems, 2):
            pair = f"{first} minus {second}"
            differences = []
            for cell in cells:
                values = [_value(records, cell, system, name) for system in (first, second)]
                if values[0] is not None and values[1] is not None:
                    differences.append(values[0] - values[1])
            differs = differs or any(differences)
            interval = bootstrap_mean(
                differences,
                seed=document["seed"],
                name=f"{name} of {pair}",
                confidence=document["confidence"],
            )
            row[pair] = interval.text() or None
            if interval.low is not None and interval.high is not None:
                if interval.low > 0 or interval.high < 0:
                    bold.add((len(rows), pair))
        if differs:
            rows.append(row)
    return rows, Marks(bold=bold)


def _value(
    records: dict[tuple[str, str], Document], cell: ClipGroup, system: str, name: str
) -> float | None:
    entry = cell.clips.get(system)
    if entry is None:
        return None
    metric, _, value = name.partition("/")
    record = records.get((str(entry.folder), entry.file), {"values": {}})
    number: float | None = record["values"].get(metric, {}).get(value)
    return number
