"""What `evaluate.py table` prints and writes."""

from pathlib import Path
from typing import Literal

from dance_eval.metrics.report import Document, compared_rows, long_rows
from dance_eval.report.paper_tables import paper_text
from musicinfuser.atomic_files import write_text
from musicinfuser.tables import FORMATS, SUFFIXES, latex_table

Layout = Literal["auto", "metrics", "paper"]
Form = Literal["markdown", "latex", "csv"]


def metrics_text(document: Document, *, form: str) -> str:
    """All values of all systems: side by side for reading, one per line in CSV."""
    if form == "csv":
        return FORMATS["csv"](long_rows(document))
    rows = compared_rows(document)
    if form == "latex":
        return latex_table(
            rows, caption=f"Means over clips, {document['confidence']:.0%} intervals."
        )
    return FORMATS[form](rows)


def table_text(document: Document, *, form: str, layout: Layout, intervals: bool) -> str:
    """A table of scores.

    Args:
        document: The content of metrics.json.
        form: ``"markdown"``, ``"latex"`` or ``"csv"``.
        layout: ``"metrics"`` has all values; ``"paper"`` has the published tables with our rows;
            ``"auto"`` has all values and, except in CSV, those published tables that a judge of
            ours filled.
        intervals: Whether our cells of the published tables say ``mean [low, high]``.
    """
    if layout == "paper":
        return paper_text(document, form=form, intervals=intervals)
    text = metrics_text(document, form=form)
    if layout == "auto" and form != "csv":
        beside = paper_text(document, form=form, intervals=intervals, only_judged=True)
        text += f"\n{beside}" if beside else ""
    return text


def write_tables(document: Document, folder: Path, *, intervals: bool, all_papers: bool) -> None:
    """Write both layouts in every form: ``table`` and ``paper_tables``, .md, .tex and .csv.

    Args:
        document: The content of metrics.json.
        folder: Where to; made if missing.
        intervals: As for `table_text`.
        all_papers: Write published tables also where no judge of ours filled any.
    """
    for form, suffix in SUFFIXES.items():
        write_text(folder / f"table{suffix}", metrics_text(document, form=form))
        beside = paper_text(document, form=form, intervals=intervals, only_judged=not all_papers)
        if beside:
            write_text(folder / f"paper_tables{suffix}", beside)
