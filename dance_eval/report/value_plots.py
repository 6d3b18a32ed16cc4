"""Which plots a metrics.json gives: one per value, and one against chance where it is known."""

from collections.abc import Mapping, Sequence

from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot, scatter_plot

CHANCE = "chance"


def chance_name(name: str, names: Sequence[str]) -> str | None:
    """The value that holds the chance level of another, if there is one.

    ``metric/chance`` is that of the first value of the metric, ``metric/x_chance`` that of
    ``metric/x``.
    """
    metric, _, value = name.partition("/")
    own = [other for other in names if other.partition("/")[0] == metric]
    if f"{name}_{CHANCE}" in own:
        return f"{name}_{CHANCE}"
    is_first = bool(own) and own[0] == name and value != CHANCE
    return f"{metric}/{CHANCE}" if is_first and f"{metric}/{CHANCE}" in own else None


def value_plots(document: Document, colours: Mapping[str, int]) -> dict[str, list[str]]:
    """All plots of a metrics.json by metric, with the number of each system's colour."""
    systems: Document = document["systems"]
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    chances = {name: chance_name(name, names) for name in names}
    plots: dict[str, list[str]] = {}
    for name, chance in chances.items():
        metric, _, value = name.partition("/")
        level = (chance or "").partition("/")[2]
        clips = [
            (clip["system"], own, clip["file"])
            for clip in document["clips"]
            if (own := clip["values"].get(metric, {})).get(value) is not None
        ]
        # One number for all clips says nothing; averages of a whole set have none per clip.
        if name in chances.values() or len({own[value] for _, own, _ in clips}) == 1:
            continue
        rows, points = [], []
        for system, colour in colours.items():
            if summary := systems.get(system, {}).get(name):
                mean, low, high = (summary[end] for end in ("mean", "low", "high"))
                dots = [(float(own[value]), file) for by, own, file in clips if by == system]
                mark = systems[system].get(chance, {}).get("mean")
                rows.append(PlotRow(system, colour, mean, low, high, dots, mark))
            own_points = [
                (own[level], own[value], file)
                for by, own, file in clips
                if by == system and level in own
            ]
            points.append((system, colour, own_points))
        drawn = [interval_plot(value, rows)]
        if chance is not None:
            said = "; ".join(
                f"{system}: {sum(y > x for x, y, _ in own)} of {len(own)} clips above chance"
                for system, _, own in points
            )
            title = f"{value} against chance"
            drawn.append(scatter_plot(title, points, x_label="chance of the clip", said=said))
        plots.setdefault(metric, []).extend(filter(None, drawn))
    return {metric: drawn for metric, drawn in plots.items() if drawn}
