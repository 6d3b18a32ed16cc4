"""The pictures of an analysis."""

from collections.abc import Mapping, Sequence

from dance_eval.study.analysis import Document
from dance_eval.study.key import StudyKey
from dance_eval.study.metric_values import (
    ALL_QUESTIONS,
    ClipValues,
    item_differences,
    item_preferences,
)
from dance_eval.study.svg import Dot, dot_chart, scatter_chart
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
    for number, (system, other) in enumerate(_pairs(document), start=1):
        rows = [r for r in document["win_rates"] if (r["system"], r["against"]) == (system, other)]
        dots = [
            Dot(
                row["question"],
                row["win_rate"],
                row["raters_interval"] or row["wilson"],
                f"{row['wins']} / {row['ties']} / {row['losses']}",
            )
            for row in rows
        ]
        plots[f"win_rates_{number}.svg"] = dot_chart(
            dots,
            title=f"Preferred {system} to {other} (wins / ties / losses)",
            low=0.0,
            high=1.0,
            reference=0.5,
            ticks=(0.0, 0.25, 0.5, 0.75, 1.0),
        )
    if strengths := [row for row in document["strengths"] if row["strength"] is not None]:
        ends = [abs(v) for row in strengths for v in (row["strength"], *(row["interval"] or ()))]
        reach = max(*ends, 0.5)
        dots = [
            Dot(
                f"{r['question']}: {r['system']}",
                r["strength"],
                r["interval"],
                f"{r['strength']:.2f}",
            )
            for r in strengths
        ]
        plots["strengths.svg"] = dot_chart(
            dots,
            title="Bradley-Terry strength (log odds)",
            low=-reach,
            high=reach,
            reference=0.0,
            ticks=(0.0,),
        )
    together = [row for row in document["correlations"] if row["question"] == ALL_QUESTIONS]
    if together:
        dots = [
            Dot(row["metric"], row["spearman"], row["spearman_interval"], _number(row["spearman"]))
            for row in together
        ]
        plots["correlations.svg"] = dot_chart(
            dots,
            title="Spearman correlation with all votes, over pairs of clips",
            low=-1.0,
            high=1.0,
            reference=0.0,
            ticks=(-1.0, -0.5, 0.0, 0.5, 1.0),
        )
    preferences = item_preferences(votes, ALL_QUESTIONS)
    for number, (name, values) in enumerate(list(metrics.items())[:MAX_SCATTERS], start=1):
        metric, liked = item_differences(values, preferences, key)
        plots[f"metric_{number:02d}.svg"] = scatter_chart(
            [(float(x), float(y) + 0.5) for x, y in zip(metric, liked, strict=True)],
            title=name,
            x_label="metric, first less second",
            y_label="votes for the first",
        )
    return plots


def _pairs(document: Document) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r["system"], r["against"]) for r in document["win_rates"]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
