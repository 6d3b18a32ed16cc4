"""Plots as SVG text, for pages and as files of their own.

Colours come from the page that holds a plot, so they follow light and dark; a file of its own has
those for a white ground.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dance_eval.metrics.intervals import MeanInterval
from musicinfuser.html_pages import render

COLOURS = ("0072b2", "b34700", "00795a", "a8326f", "7a5d00", "5b4bc4", "8a3a1f", "4a5866")
NARROW_PX, WIDE_PX, MARGIN_PX = 360, 640, 14


@dataclass(frozen=True)
class PlotRow:
    """One row of a plot, such as a system.

    Attributes:
        label: Its name.
        colour: Number of its colour; counted on beyond the last of `COLOURS` from the first.
        mean, low, high: Mean and interval, where there are any.
        dots: One (value, name) per clip.
        chance: Mean chance level, where there is one.
        note: Written at the end of a wide plot's row; None writes mean and interval.
        is_hollow: Whether the mean is a ring only, to set it apart.
    """

    label: str
    colour: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    dots: Sequence[tuple[float, str]] = ()
    chance: float | None = None
    note: str | None = None
    is_hollow: bool = False

    @property
    def text(self) -> str:
        """Mean and interval in words."""
        return MeanInterval(self.mean, self.low, self.high).text() or "no value"


@dataclass(frozen=True)
class Axis:
    """A linear axis: where values lie between two ends in px, and round numbers to mark."""

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
        return cls(start_px, end_px, [number * step for number in range(first, last + 1)])

    def px(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(self.start_px + share * (self.end_px - self.start_px), 2)

    def marks(self) -> list[tuple[float, str]]:
        """Where each mark lies, and its number."""
        digits = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return [(self.px(tick), f"{tick:.{digits}f}") for tick in self.ticks]


def interval_plot(
    title: str,
    rows: Sequence[PlotRow],
    *,
    is_wide: bool = False,
    reference: float | None = None,
    span: Sequence[float] = (),
) -> str:
    """Rows below each other: clips as dots, the mean with its interval, and chance levels.

    Args:
        title: What is plotted.
        rows: What stands below each other.
        is_wide: Also write a note at the end of each row.
        reference: Where a dashed line through all rows stands.
        span: Values that the axis holds in any case.

    Returns:
        An ``<svg>``, or "" if no row has a number.
    """
    numbers = [value for row in rows for value, _ in row.dots]
    numbers += [
        n for row in rows for n in (row.mean, row.low, row.high, row.chance) if n is not None
    ]
    if not numbers:
        return ""
    numbers += [*span, *([] if reference is None else [reference])]
    width = WIDE_PX if is_wide else NARROW_PX
    axis = Axis.over(numbers, start_px=MARGIN_PX, end_px=width - MARGIN_PX)
    said = f"{title}. {'; '.join(f'{row.label}: {row.text}' for row in rows)}"
    return render(
        "interval_plot.svg", title=title, said=said, rows=rows, is_wide=is_wide,
        reference=reference, axis=axis, colours=COLOURS,
    )  # fmt: skip


def scatter_plot(
    title: str,
    groups: Sequence[tuple[str, int, Sequence[tuple[float, float, str]]]],
    *,
    x_label: str,
    said: str,
    y_label: str = "",
    y_reference: float | None = None,
) -> str:
    """Points of one or more groups.

    Args:
        title: What is plotted.
        groups: Name, number of the colour and (x, y, name) per point; one group has no legend.
        x_label: What runs to the right.
        said: The text for those who cannot see it.
        y_label: What runs up.
        y_reference: Where a dashed line stands, with another at x = 0 and the y axis from 0 to 1;
            None draws the diagonal.

    Returns:
        An ``<svg>``, or "" without points.
    """
    points = [point for _, _, own in groups for point in own]
    if not points:
        return ""
    heights = [y for _, y, _ in points] + ([] if y_reference is None else [0.0, 1.0])
    across = Axis.over([x for x, _, _ in points], start_px=46, end_px=NARROW_PX - MARGIN_PX)
    up = Axis.over(heights, start_px=322, end_px=32)
    return render(
        "scatter_plot.svg", title=title, said=said, groups=groups, x_label=x_label,
        y_label=y_label, y_reference=y_reference, across=across, up=up, colours=COLOURS,
    )  # fmt: skip
