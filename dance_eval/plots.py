"""Plots as SVG text, for pages and as files of their own.

Colours come from the page that holds a plot, so they follow light and dark; a file of its own has
those for a white ground.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_COLOURS = 8
NARROW_PX, WIDE_PX = 360, 640
MARGIN_PX, TOP_PX, ROW_PX, SCATTER_PX = 14, 32, 40, 290
_COLOURS = "0072b2 b34700 00795a a8326f 7a5d00 5b4bc4 8a3a1f 4a5866".split()
_STYLE = "".join(
    [
        ".plot{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}",
        ".plot text{fill:var(--ink,#181a20)}.plot .title{font-weight:600;font-size:13px}",
        ".plot .tick{fill:var(--grey,#5d626d);font-size:11px;text-anchor:middle}",
        ".plot .end{fill:var(--grey,#5d626d);text-anchor:end}.grid{stroke:var(--line,#dfe2e8)}",
        ".paper,.plot .hollow{fill:var(--paper,#fff)}.dot{fill:var(--own);opacity:.45}",
        ".mean{fill:var(--own);stroke:var(--own);stroke-width:1.5}",
        ".interval{stroke:var(--own);stroke-width:3}",
        ".chance{stroke:var(--ink,#181a20);stroke-width:1.5;stroke-dasharray:3 2}",
        *(f".s{n}{{--own:var(--s{n},#{colour})}}" for n, colour in enumerate(_COLOURS)),
    ]
)


@dataclass(frozen=True)
class PlotRow:
    """One row of a plot, such as a system.

    Attributes:
        label: Its name.
        colour: Number of its colour; counted on beyond `NUM_COLOURS` from the first.
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
        if self.mean is None:
            return "no value"
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    bottom = TOP_PX + ROW_PX * len(rows) + 8
    parts = [
        f"{_line('grid', x, TOP_PX, x, bottom)}{_text('tick', x, bottom + 14, number)}"
        for x, number in axis.marks()
    ]
    if reference is not None:
        x = axis.px(reference)
        parts.append(_line("chance", x, TOP_PX, x, bottom))
    for index, row in enumerate(rows):
        top = TOP_PX + ROW_PX * index + 4
        note = "" if not is_wide else row.text if row.note is None else row.note
        # A letter is about 7 px wide.
        label = _cut(row.label, width // 7 - len(note))
        own = _text("label", MARGIN_PX, top + 12, label) + _interval_row(row, axis, top + 27)
        end = _text("end", width - MARGIN_PX, top + 12, note) if note else ""
        parts.append(f'<g class="s{row.colour % NUM_COLOURS}">{own}</g>{end}')
    said = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return _svg(title, f"{title}. {said}", width, bottom + 24, parts)


def _interval_row(row: PlotRow, axis: Axis, middle: float) -> str:
    # Equal values must not hide each other.
    parts = [
        _circle("dot", axis.px(value), middle + (number * 7 % 11 - 5), 2.5, f"{name}: {value:.3f}")
        for number, (value, name) in enumerate(row.dots)
    ]
    if row.chance is not None:
        x = axis.px(row.chance)
        parts.append(_line("chance", x, middle - 10, x, middle + 10, f"chance {row.chance:.3f}"))
    if row.low is not None and row.high is not None:
        parts.append(_line("interval", axis.px(row.low), middle, axis.px(row.high), middle))
    if row.mean is not None:
        kind = "mean hollow" if row.is_hollow else "mean"
        parts.append(_circle(kind, axis.px(row.mean), middle, 5, row.text))
    return "".join(parts)


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
    left, right, bottom = 46, NARROW_PX - MARGIN_PX, TOP_PX + SCATTER_PX
    heights = [y for _, y, _ in points] + ([] if y_reference is None else [0.0, 1.0])
    across = Axis.over([x for x, _, _ in points], start_px=left, end_px=right)
    up = Axis.over(heights, start_px=bottom, end_px=TOP_PX)
    parts = []
    for x, number in across.marks():
        parts += [_line("grid", x, TOP_PX, x, bottom), _text("tick", x, bottom + 14, number)]
    for y, number in up.marks():
        parts += [_line("grid", left, y, right, y), _text("end", left - 5, y + 4, number)]
    if y_reference is not None:
        y, x = up.px(y_reference), across.px(0.0)
        parts.append(_line("chance", left, y, right, y))
        parts += [_line("chance", x, TOP_PX, x, bottom)] if left < x < right else []
    else:
        low = max(across.ticks[0], up.ticks[0])
        high = min(across.ticks[-1], up.ticks[-1])
        if low < high:
            ends = across.px(low), up.px(low), across.px(high), up.px(high)
            parts.append(_line("chance", *ends, "chance"))
    parts.append(_text("tick", (left + right) / 2, bottom + 30, _cut(x_label, 46)))
    if y_label:
        middle = (TOP_PX + bottom) / 2
        turned = _text("tick", 11, middle, _cut(y_label, 40))
        parts.append(f'<g transform="rotate(-90 11 {middle})">{turned}</g>')
    height = bottom + 38
    for label, colour, own in groups:
        dots = "".join(
            _circle("dot", across.px(x), up.px(y), 4, f"{name}: {y:.3f}, {x_label} {x:.3f}")
            for x, y, name in own
        )
        if len(groups) > 1:
            dots += _circle("mean", left + 5, height + 4, 5)
            dots += _text("legend", left + 18, height + 8, label)
            height += 18
        parts.append(f'<g class="s{colour % NUM_COLOURS}">{dots}</g>')
    return _svg(title, said, NARROW_PX, height, parts)


def _svg(title: str, said: str, width: int, height: int, parts: Sequence[str]) -> str:
    head = _text("title", MARGIN_PX, 18, _cut(title, width // 6))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{html.escape(said)}">'
        f'<style>{_STYLE}</style><rect class="paper" width="100%" height="100%"/>'
        f"{head}{''.join(parts)}</svg>\n"
    )


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{html.escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float, name: str = "") -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}">{_name(name)}</line>'


def _circle(kind: str, x: float, y: float, radius: float, name: str = "") -> str:
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}">{_name(name)}</circle>'


def _name(text: str) -> str:
    """What is shown while the mouse rests on a mark."""
    return f"<title>{html.escape(text)}</title>" if text else ""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
