"""One HTML page with everything: players, tables, plots, frames over the sound, origin.

It needs no other file, except videos above a size limit, which lie beside it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from jsonargparse import Namespace
from tqdm import tqdm

from dance_eval.commands.options import music_beats
from dance_eval.commands.pictures import picture_row
from dance_eval.contact_sheet import SheetRow
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.following import following_rows
from dance_eval.metrics.matching import clip_groups
from dance_eval.metrics.report import (
    Document,
    compared_rows,
    is_count,
    odd_shapes,
)
from dance_eval.report.differences import group_rows, paired_differences
from dance_eval.report.headlines import headlines
from dance_eval.report.origin import failed_rows, meanings, versions
from dance_eval.report.paper_tables import NOTE, paper_rows, paper_tables
from dance_eval.report.players import Embedding, players, strip
from dance_eval.report.value_plots import value_plots
from musicinfuser.atomic_files import write_text
from musicinfuser.html_pages import render
from musicinfuser.tables import Marks, Row


def write_page(
    document: Document,
    entries: Sequence[ClipEntry],
    path: Path,
    settings: Namespace,
    *,
    command: str,
) -> None:
    """Write the page on a metrics.json and its clips, whole or not at all."""
    groups = clip_groups(entries)
    systems = list(dict.fromkeys(entry.system for entry in entries))
    colours = {system: number for number, system in enumerate(systems)}
    embedding = Embedding(path.parent, max_bytes=round(settings.embed_mb * 1e6))
    beats = music_beats(settings)
    shown = []
    for number, group in enumerate(
        tqdm(groups[: settings.max_clips], unit="group", desc="page"), start=1
    ):
        drawn: dict[str, SheetRow] = {}
        for system, entry in group.clips.items():
            if entry.problem is None:
                row = picture_row(entry, beats, settings.max_height, label=system, with_motion=True)
                drawn |= {} if row is None else {system: row}
        start = f"from {group.offset_seconds:g} s" if group.offset_seconds else ""
        shown.append(
            {
                "track": group.track,
                "facts": " · ".join(part for part in (start, group.prompt or "") if part),
                "players": players(number, group, drawn, colours, embedding),
                "strip": strip([drawn[system] for system in colours if system in drawn]),
                "rows": group_rows(group, document),
            }
        )
    num_failed = sum(bool(clip["failures"]) for clip in document["clips"])
    rows = compared_rows(document)
    counts = [row for row in rows if is_count(str(next(iter(row.values()))))]
    differences = None
    if len(document["systems"]) > 1:
        compared, marks = paired_differences(document, groups)
        differences = compared, replace(marks, rules=_metric_starts(compared))
    text = render(
        "report.html",
        title=settings.title,
        facts=(
            f"{' · '.join(systems)}: {len(document['clips'])} clips in {len(groups)} groups, each "
            f"of one track, start, prompt and seed. Clips that failed: {num_failed}."
        ),
        document=document,
        percent=f"{document['confidence']:.0%}",
        sentences=[
            sentence
            for found in document.get("findings", {}).values()
            for sentence in found.get("printed", ())
        ],
        following=following_rows(document),
        headlines=headlines(document),
        values=_ruled([row for row in rows if row not in counts]),
        counts=_ruled(counts),
        meanings=meanings(document),
        differences=differences,
        plots=value_plots(document, colours),
        note=NOTE,
        papers=[
            (table, *paper_rows(table, measured))
            for table, measured in paper_tables(document, only_judged=True)
        ],
        groups=shown,
        num_groups=len(groups),
        beside=embedding.beside,
        failed=failed_rows(document),
        shapes=odd_shapes(document),
        command=command,
        versions=[{"package": name, "version": own} for name, own in versions().items()],
        settings=json.dumps(settings.as_dict(), indent=1, default=str),
        metrics=json.dumps(document.get("metrics", []), indent=1),
    )
    write_text(path, text)


def _ruled(rows: Sequence[Row]) -> tuple[Sequence[Row], Marks]:
    return rows, Marks(rules=_metric_starts(rows))


def _metric_starts(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows in which another metric begins; the first column names it."""
    metrics = [re.split("[/:]", str(next(iter(row.values()))))[0] for row in rows]
    return [n for n, (before, own) in enumerate(pairwise(metrics), start=1) if own != before]
