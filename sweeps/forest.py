"""Forest plots: the rows of a sweep, one below the other, with their intervals."""

from collections.abc import Sequence
from statistics import fmean

from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot
from dance_eval.report.value_plots import chance_name


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
    rings = f"; rings: not set apart from {reference}" if alike else ""
    return interval_plot(
        f"{heading} (dashed: {said}{rings})",
        [
            PlotRow(row, 0, fields["mean"], fields["low"], fields["high"], is_hollow=row in alike)
            for row, fields in rows.items()
        ],
        is_wide=True,
        reference=line,
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
