"""The analysis for reading: tables, plots and one page with both."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot, scatter_plot
from dance_eval.study.key import StudyKey
from dance_eval.study.preferences import (
    ALL_QUESTIONS,
    ClipValues,
    item_differences,
    item_preferences,
)
from dance_eval.study.votes import Vote
from dance_eval.tables import csv_table
from musicinfuser.atomic_files import write_text
from musicinfuser.html_pages import render
from musicinfuser.tables import Row, markdown_table

MAX_SHOWN_PROBLEMS, MAX_SCATTERS = 200, 24


def readable_tables(document: Document) -> dict[str, list[Row]]:
    """Rows for reading, by the names of the parts of an analysis; empty parts are left out."""
    tables: dict[str, list[Row]] = {
        "win_rates": [_win_rate(row, document["options"]) for row in document["win_rates"]],
        **{
            name: [_with_intervals(row) for row in document[name]]
            for name in ("agreement", "strengths", "correlations")
        },
        "raters": [_rater(row) for row in document["raters"]],
        "problems": [
            {
                "grave": "yes" if problem["is_grave"] else "",
                "kind": problem["kind"],
                "where": problem["where"],
                "what": problem["text"],
            }
            for problem in document["problems"]
        ],
    }
    return {name: rows for name, rows in tables.items() if rows}


def write_report(folder: Path, document: Document, plots: Mapping[str, str]) -> None:
    """Write analysis.json, each table as Markdown and csv, the plots, and index.html with all."""
    write_text(folder / "analysis.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    tables = readable_tables(document)
    for name, rows in tables.items():
        write_text(folder / f"{name}.md", markdown_table(rows))
        write_text(folder / f"{name}.csv", csv_table([_flat(row) for row in document[name]]))
    for name, plot in plots.items():
        write_text(folder / "plots" / name, plot)
    parts = []
    for name, rows in tables.items():
        starts = (name, "metric_") if name == "correlations" else name
        drawn = [plot for file, plot in plots.items() if file.startswith(starts)]
        shown = rows[:MAX_SHOWN_PROBLEMS]
        parts.append({"name": name, "plots": drawn, "rows": shown, "num_rows": len(rows)})
    page = render(
        "analysis.html",
        title=f"Study {document['study']}",
        facts=f"{', '.join(document['systems'])}. {headline(document)}",
        parts=parts,
    )
    write_text(folder / "index.html", page)


def headline(document: Document) -> str:
    """What was counted; first, which raters count though they failed their checks."""
    failed = [
        f"{row['rater']} ({' and '.join(row['failed'])})"
        for row in document["raters"]
        if row["failed"] and not row["is_left_out"]
    ]
    text = ""
    if failed:
        text = (
            f"{len(failed)} rater{'s' * (len(failed) != 1)} failed a check and count all the same: "
            f"{', '.join(failed)}; --leave_out either leaves them out. "
        )
    num_raters = document["raters_counted"]
    text += f"{document['votes']} votes of {num_raters} rater{'s' * (num_raters != 1)} count"
    left_out = ", ".join(document["raters_left_out"])
    text += f"; raters {left_out} were left out." if left_out else "."
    share, ends = document["left_side"]["share"], document["left_side"]["wilson"]
    if share is not None:
        text += (
            f" Of those without ties {share:.1%} [{ends[0]:.1%}, {ends[1]:.1%}] name the left clip."
        )
    grave = sum(problem["is_grave"] for problem in document["problems"])
    return text + (f" {grave} rows or files with problems do not count." if grave else "")


def _interval(ends: tuple[float, float] | None) -> str | None:
    return None if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _win_rate(row: Document, options: Document) -> Row:
    interval = f"{options['confidence']:.0%} interval"
    return {
        "system": row["system"],
        "against": row["against"],
        "question": row["question"],
        "win rate": row["win_rate"],
        "wins / ties / losses": f"{row['wins']} / {row['ties']} / {row['losses']}",
        f"{interval}, votes (Wilson)": _interval(row["wilson"]),
        f"{interval}, raters drawn": _interval(row["raters_interval"]),
        f"{interval}, pairs drawn": _interval(row["items_interval"]),
        f"{interval}, both drawn": _interval(row["both_interval"]),
        "p (votes)": _p(row["p_votes_holm"]),
        "p (raters)": _p(row["p_raters_holm"]),
    }


def _rater(row: Document) -> Row:
    return {
        "rater": row["rater"],
        "answers": row["num_votes"],
        "catches": f"{row['num_caught']} of {row['num_catches']}",
        "repeats": f"{row['num_same']} of {row['num_repeats']}",
        "left": row["share_left"],
        "seconds": row["median_seconds"],
        "failed": ", ".join(row["failed"]),
        "left out": "yes" if row["is_left_out"] else "",
    }


def _with_intervals(row: Document) -> Row:
    return {
        name.replace("_", " "): _interval(value) if name.endswith("interval") else value
        for name, value in row.items()
    }


def _flat(row: Document) -> Row:
    """A row with both ends of intervals in columns of their own."""
    flat: dict[str, str | int | float | None] = {}
    for name, value in row.items():
        if isinstance(value, tuple):
            flat[f"{name}_low"], flat[f"{name}_high"] = value
        elif isinstance(value, list):
            flat[name] = ", ".join(map(str, value))
        else:
            flat[name] = value
    return flat


def draw_plots(
    document: Document, votes: Sequence[Vote], metrics: Mapping[str, ClipValues], key: StudyKey
) -> dict[str, str]:
    """SVG texts by file name.

    Win rates and strengths are drawn with intervals that draw raters; of metrics there is one
    chart of all correlations with all questions together, and the pairs of the first 24 metrics.
    """
    plots: dict[str, str] = {}
    systems = dict.fromkeys((row["system"], row["against"]) for row in document["win_rates"])
    for number, (system, other) in enumerate(systems, start=1):
        rows = [
            _plot_row(
                row["question"],
                row["win_rate"],
                row["raters_interval"] or row["wilson"],
                note=f"{row['wins']} / {row['ties']} / {row['losses']}",
            )
            for row in document["win_rates"]
            if (row["system"], row["against"]) == (system, other)
        ]
        title = f"Preferred {system} to {other} (wins / ties / losses)"
        plots[f"win_rates_{number}.svg"] = interval_plot(
            title, rows, is_wide=True, reference=0.5, span=(0.0, 1.0)
        )
    strengths = [row for row in document["strengths"] if row["strength"] is not None]
    ends = [abs(v) for row in strengths for v in (row["strength"], *(row["interval"] or ()))]
    reach = max([0.5, *ends])
    plots["strengths.svg"] = interval_plot(
        "Bradley-Terry strength (log odds)",
        [
            _plot_row(f"{row['question']}: {row['system']}", row["strength"], row["interval"])
            for row in strengths
        ],
        is_wide=True,
        reference=0.0,
        span=(-reach, reach),
    )
    plots["correlations.svg"] = interval_plot(
        "Spearman correlation with all votes, over pairs of clips",
        [
            _plot_row(row["metric"], row["spearman"], row["spearman_interval"])
            for row in document["correlations"]
            if row["question"] == ALL_QUESTIONS
        ],
        is_wide=True,
        reference=0.0,
        span=(-1.0, 1.0),
    )
    preferences = item_preferences(votes, ALL_QUESTIONS)
    for number, (name, values) in enumerate(list(metrics.items())[:MAX_SCATTERS], start=1):
        metric, liked = item_differences(values, preferences, key)
        points = [(float(x), float(y) + 0.5, "pair") for x, y in zip(metric, liked, strict=True)]
        plots[f"metric_{number:02d}.svg"] = scatter_plot(
            name,
            [(name, 0, points)],
            x_label="metric, first less second",
            y_label="votes for the first",
            said=f"{name}: {len(points)} pairs of clips",
            y_reference=0.5,
        )
    return {file: plot for file, plot in plots.items() if plot}


def _plot_row(
    label: str, value: float | None, interval: Sequence[float] | None, note: str = ""
) -> PlotRow:
    low, high = interval or (None, None)
    note = note or ("" if value is None else f"{value:.2f}")
    return PlotRow(label, 0, value, low, high, note=note)
