"""One HTML page with everything: players, tables, plots, frames over the sound, origin.

It needs no other file, except videos above a size limit, which lie beside it.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from dance_eval.loading import picture_row
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.music_beats import MusicBeats
from dance_eval.metrics.report import Document, compared_rows, headline_rows, is_count
from dance_eval.report.differences import paired_differences
from dance_eval.report.groups import CellGroup, cell_groups
from dance_eval.report.meanings import meanings_html
from dance_eval.report.origin import failures_html, origin_html
from dance_eval.report.paper_layout import NOTE, paper_rows, paper_tables
from dance_eval.report.players import Embedding, cell_section, cell_values
from dance_eval.report.value_plots import value_plots
from musicinfuser.atomic_files import write_text
from musicinfuser.tables import Marks, Row, html_table

_HERE = Path(__file__).parent


def write_page(
    document: Document,
    entries: Sequence[ClipEntry],
    path: Path,
    *,
    title: str,
    beats: MusicBeats,
    max_cells: int,
    max_height: int,
    max_embedded_bytes: int,
    command: str,
    settings: Document,
) -> None:
    """Write the page, whole or not at all.

    Args:
        document: The content of metrics.json.
        entries: The clips that it is about.
        path: The HTML file.
        title: Its headline.
        beats: Where the drawn beats come from.
        max_cells: Players are shown for the first so many cells.
        max_height: Taller frames are drawn from pictures scaled down to it, in px.
        max_embedded_bytes: Larger videos lie beside the page.
        command: What made it.
        settings: All options of that command.
    """
    cells = cell_groups(entries)
    systems = list(dict.fromkeys(entry.system for entry in entries))
    colours = {system: number for number, system in enumerate(systems)}
    shown, beside = _cells(
        cells[:max_cells],
        document,
        colours=colours,
        beats=beats,
        max_height=max_height,
        embedding=Embedding(path.parent, max_embedded_bytes),
    )
    num_failed = sum(bool(clip["failures"]) for clip in document["clips"])
    facts = (
        f"{' · '.join(systems)}: {len(document['clips'])} clips in {len(cells)} cells, each of one "
        f"track, start, prompt and seed. Clips that failed: {num_failed}."
    )
    sections = [
        ("findings", "What metrics say of all clips together", _findings(document)),
        ("scores", "Scores", _scores(document)),
        ("differences", "Differences between systems", _differences(document, cells)),
        ("plots", "Plots", value_plots(document, colours)),
        ("paper", "Beside published rows", _paper(document)),
        ("clips", "Clips", _intro(cells, max_cells, beside) + shown),
        ("failed", "Failed and skipped", failures_html(document)),
        ("origin", "How this was made", origin_html(document, command=command, settings=settings)),
    ]
    kept = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in kept)
    body = "".join(
        f'<section id="{key}"><h2>{name}</h2>\n{text}</section>\n' for key, name, text in kept
    )
    name = html.escape(title)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without this line, browsers ask the page's server for an icon.
        f'<link rel="icon" href="data:,">\n<title>{name}</title>\n'
        f"<style>\n{(_HERE / 'page.css').read_text('utf-8')}</style>\n</head>\n<body>\n"
        f"<header><h1>{name}</h1>\n<p>{html.escape(facts)}</p>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>\n{body}</main>\n'
        f"<script>\n{(_HERE / 'page.js').read_text('utf-8')}</script>\n</body>\n</html>\n"
    )
    write_text(path, text)


def _findings(document: Document) -> str:
    said = [
        f"<li>{html.escape(sentence)}</li>\n"
        for found in document.get("findings", {}).values()
        for sentence in found.get("printed", ())
    ]
    return f"<ul>\n{''.join(said)}</ul>\n" if said else ""


def _scores(document: Document) -> str:
    """Scores against chance, then all values, then what was only counted."""
    rows = compared_rows(document)
    counts = [row for row in rows if is_count(str(next(iter(row.values()))))]
    values = [row for row in rows if row not in counts]
    text = ""
    if headline := headline_rows(document):
        text = f"{_wide(html_table(headline), kind='wraps')}<h3>All values</h3>\n"
    text += _wide(html_table(values, marks=Marks(rules=_metric_starts(values))))
    if counts:
        table = html_table(counts, marks=Marks(rules=_metric_starts(counts)))
        text += f"<details><summary>Counts</summary>\n{_wide(table)}</details>\n"
    return text + meanings_html(document)


def _wide(table: str, *, kind: str = "") -> str:
    """A table that scrolls by itself where it is wider than the page."""
    return f'<div class="wide{kind and " " + kind}" tabindex="0">{table}</div>\n'


def _metric_starts(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows in which another metric begins; the first column names it."""
    metrics = [re.split("[/:]", str(next(iter(row.values()))))[0] for row in rows]
    return [n for n, (before, own) in enumerate(pairwise(metrics), start=1) if own != before]


def _differences(document: Document, cells: Sequence[CellGroup]) -> str:
    if len(document["systems"]) < 2:
        return ""
    rows, marks = paired_differences(document, cells)
    if not rows:
        return "<p>No value differs in any cell that two systems share.</p>\n"
    marks = replace(marks, rules=_metric_starts(rows))
    percent = f"{document['confidence']:.0%}"
    return (
        "<p>Mean difference over the cells that both systems have a clip of, with its "
        f"{percent} interval by bootstrap over cells. Bold: the interval leaves out 0, so the "
        "value tells the two apart. Of many values that tell nothing, about one in "
        f"{round(1 / (1 - document['confidence']))} does so by chance. Values that are equal in "
        "all cells are left out.</p>\n" + _wide(html_table(rows, marks=marks), kind="wraps")
    )


def _paper(document: Document) -> str:
    parts = []
    for table, measured in paper_tables(document, only_judged=True):
        rows, marks = paper_rows(table, measured)
        body = html_table(rows, num_digits=table.num_digits, marks=marks)
        parts.append(
            f"<h3>{html.escape(table.title)}</h3>\n<p>{html.escape(table.caption)} Judge of the "
            f"published rows: {html.escape(table.judge)}.</p>\n" + _wide(body)
        )
    return f"<p>{html.escape(NOTE)}</p>\n{''.join(parts)}" if parts else ""


def _intro(cells: Sequence[CellGroup], max_cells: int, beside: Sequence[str]) -> str:
    text = (
        "<p>All clips of one row have the same music, start, prompt and seed. “Play all” starts "
        "them together, with the sound of the first.</p>\n"
    )
    if len(cells) > max_cells:
        text += f"<p>The first {max_cells} of {len(cells)} cells.</p>\n"
    if beside:
        listed = "".join(f"<li>{html.escape(name)}</li>" for name in beside)
        text += (
            f"<details><summary>{len(beside)} videos lie beside this page, in videos/"
            f"</summary><ul>{listed}</ul></details>\n"
        )
    return text


def _cells(
    cells: Sequence[CellGroup],
    document: Document,
    *,
    colours: dict[str, int],
    beats: MusicBeats,
    max_height: int,
    embedding: Embedding,
) -> tuple[str, list[str]]:
    parts, beside = [], []
    for number, cell in enumerate(tqdm(cells, unit="cell", desc="page"), start=1):
        drawn = {}
        for system in colours:
            entry = cell.clips.get(system)
            if entry is not None and entry.problem is None:
                row = picture_row(entry, beats, max_height, label=system, with_motion=True)
                if row is not None:
                    drawn[system] = row
        section, outside = cell_section(
            number, cell, drawn=drawn, colours=colours, embedding=embedding
        )
        parts.append(f"{section}{cell_values(cell, document)}</section>\n")
        beside += outside
    return "".join(parts), beside
