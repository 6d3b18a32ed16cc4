"""Which values tell systems apart: paired differences over what both made clips for."""

import itertools
from collections.abc import Sequence

from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import ClipGroup
from dance_eval.metrics.report import Document
from musicinfuser.tables import Marks, Row

VALUE = "value"


def _records(document: Document) -> dict[tuple[str, str], Document]:
    """The records of metrics.json by (folder, file)."""
    return {(clip["folder"], clip["file"]): clip for clip in document["clips"]}


def paired_differences(document: Document, groups: Sequence[ClipGroup]) -> tuple[list[Row], Marks]:
    """Mean difference of every value between every two systems, with its bootstrap interval.

    Both clips of a pair are of one group, so its own effect on the value falls out.

    Returns:
        One row per value and one column per pair of systems, as ``a minus b``; bold are differences
        whose interval leaves out 0. No rows for values that differ in no group, or for a single
        system.
    """
    records = _records(document)
    systems = list(document["systems"])
    names = dict.fromkeys(name for values in document["systems"].values() for name in values)
    rows: list[Row] = []
    bold: set[tuple[int, str]] = set()
    for name in names:
        metric, _, value = name.partition("/")
        values = {
            system: [_record(records, group, system).get(metric, {}).get(value) for group in groups]
            for system in systems
        }
        row: dict[str, str | None] = {VALUE: name}
        differs = False
        for first, second in itertools.combinations(systems, 2):
            pair = f"{first} minus {second}"
            both = zip(values[first], values[second], strict=True)
            differences = [a - b for a, b in both if a is not None and b is not None]
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


def group_rows(group: ClipGroup, document: Document) -> list[Row]:
    """Every value of the clips of one group, one row per value and one column per system."""
    records = _records(document)
    rows: dict[str, dict[str, str | float | None]] = {}
    for system in group.clips:
        for metric, values in _record(records, group, system).items():
            for name, value in values.items():
                row = rows.setdefault(f"{metric}/{name}", {VALUE: f"{metric}/{name}"})
                row[system] = value
    return list(rows.values())


def _record(records: dict[tuple[str, str], Document], group: ClipGroup, system: str) -> Document:
    """The values of a system's clip, by metric."""
    entry = group.clips.get(system)
    found = records.get((str(entry.folder), entry.file)) if entry is not None else None
    return {} if found is None else found["values"]
