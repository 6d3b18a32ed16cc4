"""Forest plots: the rows of a sweep, one below the other, with their intervals."""

from collections.abc import Sequence
from statistics import fmean

from dance_eval.metrics.report import Document
from dance_eval.report.plots import Axis
from dance_eval.report.value_plots import chance_name
from dance_eval.study.svg import Dot, dot_chart


def forest_plot(
    document: Document, name: str, *, heading: str, reference: str | None, alike: Sequence[str]
) -> str:
    """One value of all rows as SVG.

    The dashed line is the chance level where the metric knows one, else the reference row.

    Args:
        document: What `combined` made.
        name: ``metric/value``.
        heading: How the table calls it.
        reference: The row that others are compared with.
        alike: Rows that are not shown to differ from it; they are rings.

    Returns:
        The plot; "" if no row has the value.
    """
    systems: Document = document["systems"]
    rows = {
        row: values[name]
        for row, values in systems.items()
        if name in values and values[name]["mean"] is not None
    }
    if not rows:
        return ""
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    line, said = _line(systems, chance_name(name, names), rows, reference)
    numbers = [
        fields[end]
        for fields in rows.values()
        for end in ("mean", "low", "high")
        if fields[end] is not None
    ]
    axis = Axis.over([*numbers, line], start_px=0.0, end_px=1.0)
    rings = f"; rings: not set apart from {reference}" if alike else ""
    return dot_chart(
        [
            Dot(row, fields["mean"], _ends(fields), _text(fields), is_hollow=row in alike)
            for row, fields in rows.items()
        ],
        title=f"{heading} (dashed: {said}{rings})",
        low=axis.lowest,
        high=axis.highest,
        reference=line,
        ticks=axis.ticks,
    )


def _line(
    systems: Document, chance: str | None, rows: Document, reference: str | None
) -> tuple[float, str]:
    levels = [
        values[chance]["mean"]
        for values in systems.values()
        if chance in values and values[chance]["mean"] is not None
    ]
    if levels:
        return fmean(levels), f"chance, {fmean(levels):.3f}"
    row = reference if reference in rows else next(iter(rows))
    return rows[row]["mean"], row


def _ends(fields: Document) -> tuple[float, float] | None:
    return None if fields["low"] is None else (fields["low"], fields["high"])


def _text(fields: Document) -> str:
    if fields["low"] is None:
        return f"{fields['mean']:.3f}"
    return f"{fields['mean']:.3f} [{fields['low']:.3f}, {fields['high']:.3f}]"
