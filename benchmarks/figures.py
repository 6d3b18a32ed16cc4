"""Figures beside their limits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicinfuser.tables import Row, markdown_table


@dataclass(frozen=True)
class Figure:
    """One measured value and what it can be at best, or must not exceed."""

    what: str
    value: float | int | str | None
    unit: str
    limit: float | None = None
    note: str = ""
    """Where the limit comes from, or what the figure leaves out."""

    @property
    def ratio(self) -> float | None:
        """Value over limit."""
        if self.limit is None or not isinstance(self.value, int | float) or not self.limit:
            return None
        return self.value / self.limit

    def row(self) -> dict[str, str]:
        """As a line of a table."""
        return {
            "what": self.what, "value": _short(self.value), "unit": self.unit,
            "limit": _short(self.limit), "value / limit": _short(self.ratio), "note": self.note,
        }  # fmt: skip


def table(figures: Sequence[Figure]) -> str:
    """Figures beside their limits."""
    rows: list[Row] = [figure.row() for figure in figures]
    return markdown_table(rows)


def read_figures(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """A result and its figures."""
    result = json.loads(path.read_text())
    names = ("what", "value", "unit", "limit", "note")
    return result, [Figure(*(row[name] for name in names)) for row in result["figures"]]


def _short(value: float | int | str | None) -> str:
    """Four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
