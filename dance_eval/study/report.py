"""The analysis for reading: tables, pictures and one page with both."""

import json
from collections.abc import Mapping
from pathlib import Path

from dance_eval.metrics.report import Document
from musicinfuser.atomic_files import write_text
from musicinfuser.html_pages import render
from musicinfuser.tables import Row, csv_table, markdown_table

MAX_SHOWN_PROBLEMS = 200
_ABOUT = {
    "win_rates": (
        "Win rates",
        "How often the first system was preferred; a tie counts one half. Wilson's interval takes "
        "votes as independent; the others draw whole raters, whole pairs of clips, or both. p is "
        "of the two-sided sign test without ties, over votes and over raters (each counts once), "
        "adjusted after Holm over the questions.",
    ),
    "agreement": (
        "Agreement",
        "Krippendorff's alpha: 1 is perfect, 0 is chance; ordered takes a tie as the middle "
        "between the clips, not as a third answer. The interval draws pairs of clips.",
    ),
    "strengths": (
        "Strengths",
        "Bradley-Terry, in log odds with mean 0; the interval draws raters. Empty where some "
        "system never lost to the others.",
    ),
    "correlations": (
        "Automatic metrics and votes",
        "Over pairs of clips: the metric's difference against the share of votes, each pair in "
        "both orders; accuracy is the share of pairs with a preference that the metric prefers "
        "too. Metrics for which less is better have a negative correlation. Over systems: means "
        "against win rates, from three systems on.",
    ),
    "raters": (
        "Raters",
        "Catches named right, repeats answered as before, the share of left clips among answers "
        "that are no ties, and the median time for a pair.",
    ),
    "problems": (
        "Problems",
        "Everything odd about the files. Rows with a grave problem are not counted as votes.",
    ),
}


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
    write_text(folder / "index.html", _page(document, tables, plots))


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


def _page(document: Document, tables: Mapping[str, list[Row]], plots: Mapping[str, str]) -> str:
    parts = []
    for name, rows in tables.items():
        title, about = _ABOUT[name]
        shown = rows[:MAX_SHOWN_PROBLEMS]
        more = f" The first {len(shown)} of {len(rows)}." if len(shown) < len(rows) else ""
        starts = (name, "metric_") if name == "correlations" else name
        drawn = [plot for file, plot in plots.items() if file.startswith(starts)]
        parts.append({"title": title, "about": about + more, "plots": drawn, "rows": shown})
    return render(
        "analysis.html",
        title=f"Study {document['study']}",
        facts=f"{', '.join(document['systems'])}. {headline(document)}",
        parts=parts,
    )


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
