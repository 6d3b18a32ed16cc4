"""Which plots a metrics.json gives: one per value, and one against chance where it is known."""

import html
from collections.abc import Mapping, Sequence

from dance_eval.metrics.report import Document
from dance_eval.report.plots import PlotRow, chance_plot, interval_plot

CHANCE = "chance"


def chance_name(name: str, names: Sequence[str]) -> str | None:
    """The value that holds the chance level of another, if there is one.

    ``metric/chance`` is that of the first value of the metric, ``metric/x_chance`` that of
    ``metric/x``.

    Args:
        name: ``metric/value``.
        names: All names of values, in order.
    """
    metric, _, value = name.partition("/")
    own = [other for other in names if other.partition("/")[0] == metric]
    if f"{name}_{CHANCE}" in own:
        return f"{name}_{CHANCE}"
    is_first = bool(own) and own[0] == name and value != CHANCE
    return f"{metric}/{CHANCE}" if is_first and f"{metric}/{CHANCE}" in own else None


def value_plots(document: Document, colours: Mapping[str, int]) -> str:
    """All plots under a heading per metric; "" if there is no number.

    Args:
        document: The content of metrics.json.
        colours: Number of each system's colour.
    """
    systems: Document = document["systems"]
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    chances = {name: chance_name(name, names) for name in names}
    parts: dict[str, list[str]] = {}
    for name, chance in chances.items():
        metric, _, value = name.partition("/")
        if name in chances.values() or _is_constant(document, name):
            continue
        rows = [
            _row(document, system, colour, name=name, chance=chance)
            for system, colour in colours.items()
            if name in systems.get(system, {})
        ]
        plots = [interval_plot(value, rows)]
        if chance is not None:
            clips = [
                (system, colour, _against_chance(document, system, name, chance))
                for system, colour in colours.items()
            ]
            plots.append(chance_plot(value, clips))
        parts.setdefault(metric, []).extend(plot for plot in plots if plot)
    sections = [
        f'<h3>{html.escape(metric)}</h3>\n<div class="plots">\n{"".join(plots)}</div>\n'
        for metric, plots in parts.items()
        if plots
    ]
    if not sections:
        return ""
    legend = (
        f"<p>Small dots are clips, large ones means with their {document['confidence']:.0%} "
        "intervals; a dashed line is the mean chance level. Values that are equal for all clips "
        "are not plotted.</p>\n"
    )
    return legend + "".join(sections)


def _is_constant(document: Document, name: str) -> bool:
    """Whether every clip has the same number; not where there are no clips, only averages."""
    metric, _, value = name.partition("/")
    numbers = [clip["values"].get(metric, {}).get(value) for clip in document["clips"]]
    return len({number for number in numbers if number is not None}) == 1


def _row(document: Document, system: str, colour: int, *, name: str, chance: str | None) -> PlotRow:
    summaries = document["systems"][system]
    summary = summaries[name]
    metric, _, value = name.partition("/")
    dots = [
        (float(number), clip["file"])
        for clip in document["clips"]
        if clip["system"] == system
        and (number := clip["values"].get(metric, {}).get(value)) is not None
    ]
    return PlotRow(
        label=system,
        colour=colour,
        mean=summary["mean"],
        low=summary["low"],
        high=summary["high"],
        dots=dots,
        chance=summaries[chance]["mean"] if chance in summaries else None,
    )


def _against_chance(
    document: Document, system: str, name: str, chance: str
) -> list[tuple[float, float, str]]:
    metric, _, value = name.partition("/")
    level = chance.partition("/")[2]
    points = []
    for clip in document["clips"]:
        values = clip["values"].get(metric, {})
        if clip["system"] == system and value in values and level in values:
            points.append((values[level], values[value], clip["file"]))
    return points
