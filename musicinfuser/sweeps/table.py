"""The table of a sweep, from what its runs scored."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musicinfuser.metrics.report import Document, as_fields, read_report
from musicinfuser.metrics.seed_intervals import bootstrap_seeds_and_clips
from musicinfuser.report.score_tables import write_tables
from musicinfuser.sweeps.plan import ROOT, Run
from musicinfuser.sweeps.run_folder import is_finished
from musicinfuser.sweeps.settings import SweepSpec
from musicinfuser.tables import Row, markdown_table
from musicinfuser.whole_files import write_text

NOTE = (
    "Mean over seeds and clips [{confidence:.0%} interval, both are resampled]; seeds are those of "
    "the trainings."
)


def write_sweep_table(spec: SweepSpec, runs: Sequence[Run], *, command: str) -> None:
    """Write and print the table over the finished runs, of which there must be any.

    In the sweep's folder: ``rows.md``, one line per row; ``metrics.json``, the clips of all runs as
    one document; and what ``evaluate.py table`` makes of that.

    Args:
        spec: The sweep.
        runs: Its runs.
        command: What was typed.
    """
    finished = [run for run in runs if is_finished(run)]
    folder = Path(spec.folder)
    document = combined(finished)
    waiting = [run.name for run in runs if run not in finished]
    document |= {"complete": not waiting, "command": command, "commit": commit(ROOT)}
    write_text(folder / "metrics.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_tables(document, folder, intervals=True, all_papers=False)
    table = markdown_table(sweep_rows(document, spec.columns))
    lines = [table, NOTE.format(confidence=document["confidence"])]
    if waiting:
        lines.append(f"Not finished: {', '.join(waiting)}.")
    lines.append(f"Made by `{command}` at commit {document['commit']}.")
    write_text(folder / "rows.md", "\n".join(lines) + "\n")
    print(table, end="")
    print(f"table: {folder / 'rows.md'}")


def combined(runs: Sequence[Run]) -> Document:
    """The scores of several runs as one metrics.json.

    Its systems are rows; ``by_seed`` has the mean of each training, by row and value. Values of
    metrics over sets of clips are given as the mean over seeds, without an interval.
    """
    documents = [(run, read_report(run.folder / "metrics.json")) for run in runs]
    settings = {name: documents[0][1][name] for name in ("seed", "confidence")}
    clips = [
        clip | {"system": _row_name(run, clip["system"]), "trained_with_seed": run.seed}
        for run, document in documents
        for clip in document["clips"]
    ]
    systems: Document = {}
    by_seed: Document = {}
    for system in dict.fromkeys(clip["system"] for clip in clips):
        own = [
            (run, summary)
            for run, document in documents
            for name, summary in document["systems"].items()
            if _row_name(run, name) == system
        ]
        for value in dict.fromkeys(value for _, summary in own for value in summary):
            summaries = {str(run.seed): s[value] for run, s in own if value in s}
            fields = _summary(system, value, clips, summaries, **settings)
            systems.setdefault(system, {})[value] = fields
            means = {seed: summary["mean"] for seed, summary in summaries.items()}
            by_seed.setdefault(system, {})[value] = means
    return {
        "systems": systems,
        "by_seed": by_seed,
        "clips": clips,
        "findings": {},
        "metrics": documents[0][1].get("metrics", []),
        "unlisted": [],
        **settings,
    }


def sweep_rows(document: Document, columns: Mapping[str, str]) -> list[Row]:
    """One line per row of the sweep.

    Args:
        document: What `combined` made.
        columns: Heading -> ``metric/value``; all values if empty.
    """
    systems: Document = document["systems"]
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    columns = columns or {name: name for name in names}
    rows: list[Row] = []
    for system, values in systems.items():
        row: dict[str, Any] = {"row": system}
        for heading, name in columns.items():
            row[heading] = _cell(values.get(name))
        row["seeds"] = max(map(len, document["by_seed"][system].values()))
        row["clips"] = max(summary["n"] for summary in values.values())
        rows.append(row)
    return rows


def commit(folder: Path) -> str:
    """The commit of this program, ``-dirty`` if files were changed; "unknown" without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        told = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"


def _row_name(run: Run, system: str) -> str:
    """Generated clips carry the row's name, with a mark if they hear something else."""
    return run.row if run.seed is None else system


def _summary(
    system: str,
    name: str,
    clips: Sequence[Document],
    summaries: Mapping[str, Document],
    *,
    seed: int,
    confidence: float,
) -> Document:
    metric, _, value = name.partition("/")
    by_training: dict[str, dict[str, float]] = {}
    for clip in clips:
        number = clip["values"].get(metric, {}).get(value)
        if clip["system"] == system and number is not None:
            training = by_training.setdefault(str(clip["trained_with_seed"]), {})
            training[clip["file"]] = number
    num_failed = {"num_failed": sum(s.get("num_failed", 0) for s in summaries.values())}
    if not by_training:
        means = [s["mean"] for s in summaries.values() if s["mean"] is not None]
        mean = sum(means) / len(means) if means else None
        n = max(s["n"] for s in summaries.values())
        return {"mean": mean, "low": None, "high": None, "n": n} | num_failed
    interval = bootstrap_seeds_and_clips(
        list(by_training.values()), seed=seed, name=name, confidence=confidence
    )
    return as_fields(interval) | num_failed


def _cell(summary: Document | None) -> str | None:
    if summary is None or summary["mean"] is None:
        return None
    if summary["low"] is None:
        return f"{summary['mean']:.3f}"
    return f"{summary['mean']:.3f} [{summary['low']:.3f}, {summary['high']:.3f}]"
