"""Small charts as SVG text."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

_FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_ROW_PX, _LABEL_PX, _PLOT_PX, _VALUE_PX, _HEAD_PX = 26, 250, 380, 150, 44
# Colours of the page that embeds a chart, or on their own these.
_STYLE = (
    "text{fill:var(--ink,#22262b)}.quiet{fill:var(--quiet,#626a73)}"
    ".line{stroke:var(--line,#cfcdc7)}.zero{stroke:var(--quiet,#626a73)}"
    ".mark{fill:var(--accent,#2f5d8c);stroke:var(--accent,#2f5d8c)}"
    ".paper,.hollow{fill:var(--card,#ffffff)}"
)


@dataclass(frozen=True)
class Dot:
    """One row of a dot chart.

    Attributes:
        label: What it is.
        value: Where the dot stands; None draws none.
        interval: Both ends of its line, or None.
        text: What is written at the end of the row.
        is_hollow: Whether the dot is a ring only, to set it apart.
    """

    label: str
    value: float | None
    interval: tuple[float, float] | None
    text: str
    is_hollow: bool = False


def dot_chart(
    dots: Sequence[Dot],
    *,
    title: str,
    low: float,
    high: float,
    reference: float,
    ticks: Sequence[float],
) -> str:
    """Dots with intervals, one below the other.

    Args:
        dots: The rows.
        title: Written above.
        low: Left end of the axis.
        high: Right end of the axis.
        reference: Where a dashed line stands.
        ticks: Numbers on the axis.
    """

    def x(value: float) -> float:
        return _LABEL_PX + _PLOT_PX * (min(max(value, low), high) - low) / (high - low)

    height = _HEAD_PX + _ROW_PX * len(dots) + 26
    bottom = _HEAD_PX + _ROW_PX * len(dots)
    parts = [_text(12, 22, title, weight=600, size=15)]
    for tick in ticks:
        parts.append(_line(x(tick), _HEAD_PX - 8, x(tick), bottom, "line"))
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", anchor="middle", style="quiet"))
    parts.append(_line(x(reference), _HEAD_PX - 8, x(reference), bottom, "zero", dash=True))
    for number, dot in enumerate(dots):
        y = _HEAD_PX + _ROW_PX * number + 10
        parts.append(_text(12, y + 4, _cut(dot.label, 38)))
        if dot.interval is not None:
            ends = [x(end) for end in dot.interval]
            parts.append(_line(ends[0], y, ends[1], y, "mark", width=2.5))
        if dot.value is not None:
            style = "mark hollow" if dot.is_hollow else "mark"
            parts.append(f'<circle class="{style}" cx="{x(dot.value):.1f}" cy="{y}" r="4.5"/>')
        parts.append(_text(_LABEL_PX + _PLOT_PX + 14, y + 4, dot.text, style="quiet"))
    return _svg(_LABEL_PX + _PLOT_PX + _VALUE_PX, height, parts, title)


def scatter_chart(
    points: Sequence[tuple[float, float]], *, title: str, x_label: str, y_label: str
) -> str:
    """Points with a horizontal line at 0.5; the y axis runs from 0 to 1."""
    width, height, left, top, side = 340, 300, 52, 40, 200
    values = [point[0] for point in points] or [0.0]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5

    def place(point: tuple[float, float]) -> tuple[float, float]:
        span = width - left - 20
        return left + span * (point[0] - low) / (high - low), top + side * (1 - point[1])

    parts = [_text(12, 22, _cut(title, 44), weight=600, size=14)]
    for tick in (0.0, 0.5, 1.0):
        y = place((low, tick))[1]
        parts.append(
            _line(left, y, width - 20, y, "zero" if tick == 0.5 else "line", dash=tick == 0.5)
        )
        parts.append(_text(left - 8, y + 4, f"{tick:g}", anchor="end", style="quiet"))
    if low < 0 < high:
        x = place((0.0, 0.0))[0]
        parts.append(_line(x, top, x, top + side, "zero", dash=True))
    for end, anchor in ((low, "start"), (high, "end")):
        x = place((end, 0.0))[0]
        parts.append(_text(x, top + side + 18, f"{end:.3g}", anchor=anchor, style="quiet"))
    for point in points:
        x, y = place(point)
        parts.append(
            f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill-opacity=".55" '
            'stroke-opacity="0"/>'
        )
    parts.append(
        _text(left + (width - left - 20) / 2, top + side + 36, _cut(x_label, 46), anchor="middle")
    )
    middle = top + side / 2
    parts.append(
        f'<text x="14" y="{middle}" font-size="12" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle})">{html.escape(_cut(y_label, 34))}</text>'
    )
    return _svg(width, height, parts, title)


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="{_FONT}" font-size="13" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="paper" width="100%" height="100%" rx="10"/>\n{body}\n</svg>\n'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    style: str = "ink",
    weight: int = 400,
    size: int = 13,
) -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-weight="{weight}" font-size="{size}">{html.escape(text)}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, style: str, *, width: float = 1, dash: bool = False
) -> str:
    dashes = ' stroke-dasharray="4 4"' if dash else ""
    return (
        f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{width}"{dashes}/>'
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
