"""The pictures of an analysis."""

from collections.abc import Mapping, Sequence

from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot, scatter_plot
from dance_eval.study.key import StudyKey
from dance_eval.study.metric_values import (
    ALL_QUESTIONS,
    ClipValues,
    item_differences,
    item_preferences,
)
from dance_eval.study.votes import Vote

MAX_SCATTERS = 24


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
            PlotRow(
                row["question"],
                0,
                row["win_rate"],
                *(row["raters_interval"] or row["wilson"]),
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
            _row(f"{row['question']}: {row['system']}", row["strength"], row["interval"])
            for row in strengths
        ],
        is_wide=True,
        reference=0.0,
        span=(-reach, reach),
    )
    plots["correlations.svg"] = interval_plot(
        "Spearman correlation with all votes, over pairs of clips",
        [
            _row(row["metric"], row["spearman"], row["spearman_interval"])
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


def _row(label: str, value: float | None, interval: Sequence[float] | None) -> PlotRow:
    low, high = interval or (None, None)
    return PlotRow(label, 0, value, low, high, note="" if value is None else f"{value:.2f}")
