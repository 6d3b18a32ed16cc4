"""Plots as SVG inside HTML: colours come from the page, so they follow light and dark."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH_PX, MARGIN_PX, ROW_PX, AXIS_PX = 360, 14, 40, 24
SCATTER_PX = 300
NUM_COLOURS = 8


@dataclass(frozen=True)
class PlotRow:
    """One system in a plot.

    Attributes:
        label: Its name.
        colour: Number of its colour; counted on beyond `NUM_COLOURS` from the first.
        mean, low, high: Mean and interval, where there are any.
        dots: One (value, name) per clip.
        chance: Mean chance level, where there is one.
    """

    label: str
    colour: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    dots: Sequence[tuple[float, str]] = ()
    chance: float | None = None


@dataclass(frozen=True)
class Axis:
    """A linear axis: where values lie between two ends in px, and round numbers to mark."""

    lowest: float
    highest: float
    start_px: float
    end_px: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], *, start_px: float, end_px: float) -> "Axis":
        """An axis with four to eight round marks that holds all values.

        Args:
            values: At least one finite number.
            start_px: Where the lowest mark lies.
            end_px: Where the highest lies.
        """
        low, high = min(values), max(values)
        if high - low < 1e-12 * max(abs(low), abs(high), 1.0):
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [number * step for number in range(first, last + 1)]
        return cls(ticks[0], ticks[-1], start_px, end_px, ticks)

    def px(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.lowest) / (self.highest - self.lowest)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


def interval_plot(title: str, rows: Sequence[PlotRow]) -> str:
    """Per system the clips as dots, the mean with its interval, and a mark at the chance level.

    Args:
        title: What is plotted; also the text for those who cannot see it.
        rows: One per system.

    Returns:
        A ``<figure>``, or "" if there is no number at all.
    """
    numbers = [value for row in rows for value, _ in row.dots]
    numbers += [
        n for row in rows for n in (row.mean, row.low, row.high, row.chance) if n is not None
    ]
    if not numbers:
        return ""
    axis = Axis.over(numbers, start_px=MARGIN_PX, end_px=WIDTH_PX - MARGIN_PX)
    bottom = ROW_PX * len(rows) + 8
    parts = [
        f'<line class="grid" x1="{axis.px(t)}" x2="{axis.px(t)}" y1="0" y2="{bottom}"/>'
        f'<text class="tick" x="{axis.px(t)}" y="{bottom + 14}">{_number(t, axis)}</text>'
        for t in axis.ticks
    ]
    for index, row in enumerate(rows):
        parts.append(_interval_row(row, axis, ROW_PX * index + 4))
    said = "; ".join(f"{row.label}: {_text(row)}" for row in rows)
    return _figure(title, f"{title}. {said}", WIDTH_PX, bottom + AXIS_PX, parts)


def _interval_row(row: PlotRow, axis: Axis, top: float) -> str:
    middle = top + 27
    parts = [f'<text x="{MARGIN_PX}" y="{top + 12}">{html.escape(row.label)}</text>']
    for number, (value, name) in enumerate(row.dots):
        # Equal values must not hide each other.
        y = middle + (number * 7 % 11 - 5)
        parts.append(
            f'<circle class="dot" cx="{axis.px(value)}" cy="{y}" r="2.5">'
            f"<title>{html.escape(name)}: {value:.3f}</title></circle>"
        )
    if row.chance is not None:
        x = axis.px(row.chance)
        parts.append(
            f'<line class="chance" x1="{x}" x2="{x}" y1="{middle - 10}" y2="{middle + 10}">'
            f"<title>chance {row.chance:.3f}</title></line>"
        )
    if row.low is not None and row.high is not None:
        parts.append(
            f'<line class="interval" x1="{axis.px(row.low)}" x2="{axis.px(row.high)}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    if row.mean is not None:
        parts.append(
            f'<circle class="mean" cx="{axis.px(row.mean)}" cy="{middle}" r="5">'
            f"<title>{html.escape(_text(row))}</title></circle>"
        )
    return f'<g class="s{row.colour % NUM_COLOURS}">{"".join(parts)}</g>'


def chance_plot(
    title: str, systems: Sequence[tuple[str, int, Sequence[tuple[float, float, str]]]]
) -> str:
    """Every clip's score against its own chance level; above the diagonal is better than chance.

    Args:
        title: What is plotted.
        systems: Name, number of the colour and (chance, score, name) per clip.

    Returns:
        A ``<figure>``, or "" without clips.
    """
    points = [point for _, _, own in systems for point in own]
    if not points:
        return ""
    across = Axis.over([p[0] for p in points], start_px=40, end_px=WIDTH_PX - MARGIN_PX)
    up = Axis.over([p[1] for p in points], start_px=SCATTER_PX, end_px=10)
    parts = []
    for tick in across.ticks:
        x = across.px(tick)
        parts.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="10" y2="{SCATTER_PX}"/>'
            f'<text class="tick" x="{x}" y="{SCATTER_PX + 14}">{_number(tick, across)}</text>'
        )
    for tick in up.ticks:
        y = up.px(tick)
        parts.append(
            f'<line class="grid" x1="40" x2="{WIDTH_PX - MARGIN_PX}" y1="{y}" y2="{y}"/>'
            f'<text class="side" x="35" y="{y + 4}">{_number(tick, up)}</text>'
        )
    low = max(across.lowest, up.lowest)
    high = min(across.highest, up.highest)
    if low < high:
        parts.append(
            f'<line class="chance" x1="{across.px(low)}" y1="{up.px(low)}" '
            f'x2="{across.px(high)}" y2="{up.px(high)}"><title>chance</title></line>'
        )
    for label, colour, own in systems:
        dots = "".join(
            f'<circle class="dot" cx="{across.px(chance)}" cy="{up.px(score)}" r="4">'
            f"<title>{html.escape(f'{label}, {name}')}: {score:.3f}, chance {chance:.3f}</title>"
            "</circle>"
            for chance, score, name in own
        )
        parts.append(f'<g class="s{colour % NUM_COLOURS}">{dots}</g>')
    parts.append(
        f'<text class="tick" x="{(40 + WIDTH_PX - MARGIN_PX) / 2}" y="{SCATTER_PX + 30}">'
        "chance of the clip</text>"
    )
    said = "; ".join(
        f"{label}: {sum(s > c for c, s, _ in own)} of {len(own)} clips above chance"
        for label, _, own in systems
    )
    legend = "".join(
        f'<span class="s{colour % NUM_COLOURS}">{html.escape(label)}</span>'
        for label, colour, _ in systems
    )
    figure = _figure(f"{title} against chance", said, WIDTH_PX, SCATTER_PX + 38, parts)
    return figure.replace("</figure>", f'<p class="legend">{legend}</p></figure>')


def _figure(title: str, said: str, width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(said)}">'
        f"{''.join(parts)}</svg></figure>\n"
    )


def _text(row: PlotRow) -> str:
    if row.mean is None:
        return "no value"
    if row.low is None or row.high is None:
        return f"{row.mean:.3f}"
    return f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _number(value: float, axis: Axis) -> str:
    step = axis.ticks[1] - axis.ticks[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{digits}f}"
