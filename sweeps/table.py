"""The table of a sweep, from what its runs scored."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from dance_eval.commands.table import write_tables
from dance_eval.metrics.following import following_rows, is_controlled
from dance_eval.metrics.intervals import MeanInterval
from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot
from dance_eval.report.value_plots import CHANCE, chance_name
from musicinfuser.atomic_files import write_text
from musicinfuser.tables import Marks, Row, markdown_table
from sweeps.plan import ROOT, Run
from sweeps.scores import combined, difference_text, differences
from sweeps.settings import SweepSpec, all_rows, slug
from sweeps.work import is_finished, trained_with_others

ROWS = "rows"
"""Stem of what the sweep itself writes: .json, .md and a plot per column."""
NOTE = (
    "Mean over seeds and clips [{confidence:.0%} interval, both are resampled]; seeds are those of "
    "the trainings."
)
DIFFERENCES_NOTE = (
    "Differences to {reference}, paired by seed and clip [{confidence:.0%} interval] (lowest to "
    "highest seed). Bold: the interval leaves out 0 and all seeds agree. Few seeds say little of "
    "how others would spread, and of many values some are bold by chance."
)


def write_sweep_table(spec: SweepSpec, runs: Sequence[Run], *, command: str) -> None:
    """Write and print the table over the finished runs, of which there must be any.

    In the sweep's folder: ``rows.md``, one line per row and the differences to the reference;
    ``rows.json``, the same for programs; ``rows_<column>.svg``, a plot per column;
    ``metrics.json``, the clips of all runs as one document; and what ``evaluate.py table`` makes of
    that.
    """
    finished = [run for run in runs if is_finished(run)]
    folder = Path(spec.folder)
    document = combined(finished)
    waiting = [run.name for run in runs if run not in finished]
    others = {run.name: paths for run in finished if (paths := trained_with_others(run))}
    document |= {"complete": not waiting, "command": command, "commit": _commit()}
    write_text(folder / "metrics.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_tables(document, folder, intervals=True, all_papers=False)
    columns = shown(document, spec.columns)
    found = compared(document, spec, list(columns.values()))
    table = markdown_table(sweep_rows(document, columns))
    text = [table, NOTE.format(confidence=document["confidence"]), ""]
    if is_controlled(following := following_rows(document)):
        text += [markdown_table(following)]
    if found:
        note = DIFFERENCES_NOTE.format(reference=spec.reference, confidence=document["confidence"])
        text += [_difference_table(found, columns), note, ""]
        text += [f"{line}\n" for line in unpaired_lines(found, columns)]
    for heading, name in columns.items():
        alike = [row for row, own in found.items() if name in own and not own[name]["differs"]]
        plot = forest_plot(document, name, heading=heading, reference=spec.reference, alike=alike)
        if plot and not _is_chance(name):
            file = f"{ROWS}_{slug(heading)}.svg"
            write_text(folder / file, plot)
            text.append(f"![{heading}]({file})\n")
    if waiting:
        text.append(f"Not finished: {', '.join(waiting)}.")
    if others:
        named = "; ".join(f"{run} ({', '.join(paths)})" for run, paths in others.items())
        text.append(f"Trained with other content than these files and folders hold now: {named}.")
    text.append(f"Made by `{command}` at commit {document['commit']}.")
    write_text(folder / f"{ROWS}.md", "\n".join(text) + "\n")
    numbers = _in_short(document, spec, columns, found)
    numbers |= {"waiting": waiting, "trained_with_others": sorted(others)}
    write_text(folder / f"{ROWS}.json", json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    print(table, end="")
    print(f"table: {folder / ROWS}.md")


def shown(document: Document, columns: Mapping[str, str]) -> dict[str, str]:
    """Columns of the table, heading -> ``metric/value``; all values where none are named."""
    names = dict.fromkeys(name for values in document["systems"].values() for name in values)
    return dict(columns) or {name: name for name in names}


def compared(document: Document, spec: SweepSpec, values: Sequence[str]) -> Document:
    """What `differences` finds, but for chance levels; nothing without a reference."""
    if spec.reference is None or spec.reference not in document["systems"]:
        return {}
    untrained = {row.name for row in all_rows(spec) if not row.train or row.clips is not None}
    values = [value for value in values if not _is_chance(value)]
    return differences(document, values, reference=spec.reference, untrained=untrained)


def _difference_table(found: Document, columns: Mapping[str, str]) -> str:
    """One line per row that was compared, as Markdown; bold is what differs."""
    rows: list[Row] = []
    bold = []
    compared_values = {name for values in found.values() for name in values}
    for row, values in found.items():
        cells: dict[str, str | None] = {"row": row}
        for heading, name in columns.items():
            if name in compared_values:
                cells[heading] = difference_text(values[name]) if name in values else None
            if name in values and values[name]["differs"]:
                bold.append((len(rows), heading))
        rows.append(cells)
    return markdown_table(rows, marks=Marks(bold=bold))


def unpaired_lines(found: Document, columns: Mapping[str, str]) -> list[str]:
    """One sentence per row of how many requests it or the reference alone has clips of."""
    counts = {
        row: max((values[n]["num_alone"] for n in columns.values() if n in values), default=0)
        for row, values in found.items()
    }
    return [
        f"{row}: {count} generation requests of it or of the reference have no counterpart."
        for row, count in counts.items()
        if count
    ]


def _in_short(
    document: Document, spec: SweepSpec, columns: Mapping[str, str], found: Document
) -> Document:
    """The table for programs: no clips, and nothing of the machine."""
    rows = {
        system: {
            name: values[name] | {"by_seed": document["by_seed"][system][name]}
            for name in columns.values()
            if name in values
        }
        for system, values in document["systems"].items()
    }
    own = asdict(spec)
    return {
        "rows": rows,
        "reference": spec.reference,
        "differences": found,
        "columns": dict(columns),
        "sweep": {n: own[n] for n in ("configs", "options", "seeds", "predict", "score", "rows")},
        **{n: document[n] for n in ("seed", "confidence", "complete", "command", "commit")},
    }


def sweep_rows(document: Document, columns: Mapping[str, str]) -> list[Row]:
    """One line per row of what `combined` made, with columns heading -> ``metric/value``."""
    rows: list[Row] = []
    for system, values in document["systems"].items():
        row: dict[str, Any] = {"row": system}
        for heading, name in columns.items():
            if name in values:
                ends = (values[name][end] for end in ("mean", "low", "high"))
                row[heading] = MeanInterval(*ends).text() or None
        row["seeds"] = max(map(len, document["by_seed"][system].values()))
        row["clips"] = max(summary["n"] for summary in values.values())
        rows.append(row)
    return rows


def forest_plot(
    document: Document, name: str, *, heading: str, reference: str | None, alike: Sequence[str]
) -> str:
    """One value of all rows with their intervals, one below the other, as SVG.

    The dashed line is the chance level where the metric has one, else the reference row, from which
    rows that are rings are not shown to differ. "" if no row of what `combined` made has the value.
    """
    systems: Document = document["systems"]
    rows = {
        row: values[name]
        for row, values in systems.items()
        if name in values and values[name]["mean"] is not None
    }
    if not rows:
        return ""
    chance = chance_name(name, list(shown(document, {})))
    levels = [values[chance]["mean"] for values in systems.values() if chance in values]
    levels = [level for level in levels if level is not None]
    row = reference if reference in rows else next(iter(rows))
    line = fmean(levels) if levels else rows[row]["mean"]
    meaning = f"chance, {line:.3f}" if levels else row
    rings = f"; rings: not set apart from {reference}" if alike else ""
    return interval_plot(
        f"{heading} (dashed: {meaning}{rings})",
        [
            PlotRow(row, 0, fields["mean"], fields["low"], fields["high"], is_hollow=row in alike)
            for row, fields in rows.items()
        ],
        is_wide=True,
        reference=line,
    )


def _commit() -> str:
    """The commit of this program, ``-dirty`` if files were changed; "unknown" without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "unknown"


def _is_chance(name: str) -> bool:
    return name.endswith(("/" + CHANCE, "_" + CHANCE))
