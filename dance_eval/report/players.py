"""The clips of a cell on the page: players beside each other, frames over the sound, values."""

import base64
import html
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from dance_eval.contact_sheet import SheetRow, sheet_image
from dance_eval.metrics.report import Document
from dance_eval.report.differences import VALUE, clip_records
from dance_eval.report.groups import CellGroup
from dance_eval.report.plots import NUM_COLOURS
from musicinfuser.atomic_files import atomic_file
from musicinfuser.tables import Row, html_table, html_text

WEBP_QUALITY = 75
NUM_STRIP_COLUMNS = 8


@dataclass(frozen=True)
class Embedding:
    """Where the videos of a page go.

    Attributes:
        folder: The folder of the page.
        max_bytes: Larger videos lie beside the page, in ``videos/``.
    """

    folder: Path
    max_bytes: int

    def source(self, path: Path, *, name: str) -> tuple[str, bool]:
        """What a ``src`` says, and whether the video is in it.

        Args:
            path: The video.
            name: Its name beside the page, without a suffix.

        Raises:
            OSError: If the file cannot be read or copied.
        """
        if path.stat().st_size <= self.max_bytes:
            return f"data:video/mp4;base64,{_base64(path.read_bytes())}", True
        copy = self.folder / "videos" / f"{name}.mp4"
        with atomic_file(copy) as temporary:
            shutil.copyfile(path, temporary)
        return f"videos/{quote(copy.name)}", False


def cell_section(
    number: int,
    cell: CellGroup,
    *,
    drawn: dict[str, SheetRow],
    colours: dict[str, int],
    embedding: Embedding,
) -> tuple[str, list[str]]:
    """The players of one cell and what is under them.

    Args:
        number: From 1, on the page.
        cell: The clips.
        drawn: Clips that can be read, decoded, by system.
        colours: Number of each system's colour.
        embedding: Where the videos go.

    Returns:
        A ``<section>`` without its end, and the names of videos that lie beside the page.
    """
    start = f"from {cell.offset_seconds:g} s" if cell.offset_seconds else ""
    facts = " · ".join(part for part in (start, cell.prompt or "") if part)
    figures, beside = [], []
    for system, colour in colours.items():
        entry, row = cell.clips.get(system), drawn.get(system)
        if entry is None or row is None:
            reason = "no clip of this cell" if entry is None else "cannot be shown; see Failed"
            screen = f'<div class="none">{reason}</div>'
        else:
            name = f"{number:02d}_{colour}"
            source, is_inside = embedding.source(entry.path, name=name)
            if not is_inside:
                beside.append(f"{name}.mp4: {system}, {entry.file}")
            screen = _player(row, source, label=f"{system}, cell {number}")
        file = html_text(entry.file) if entry else ""
        figures.append(
            f'<figure>{screen}<figcaption><b class="s{colour % NUM_COLOURS}">'
            f"{html_text(system)}</b><small>{file}</small></figcaption></figure>\n"
        )
    head = (
        f'<section class="cell" id="cell-{number}">'
        f"<h3>{number}. {html.escape(cell.track)}</h3>\n<p>{html.escape(facts)}</p>\n"
        '<p class="controls" hidden><button type="button" class="play">Play all</button>\n'
        '<label><input type="checkbox" class="loop" checked> Loop</label></p>\n'
        f'<div class="players">\n{"".join(figures)}</div>\n'
    )
    return head + _strips(number, list(drawn.values())), beside


def cell_values(cell: CellGroup, document: Document) -> str:
    """What every metric says about the clips of one cell."""
    records = clip_records(document)
    rows: dict[str, dict[str, str | float | None]] = {}
    for system, entry in cell.clips.items():
        record = records.get((str(entry.folder), entry.file), {"values": {}})
        for metric, values in record["values"].items():
            for name, value in values.items():
                row = rows.setdefault(f"{metric}/{name}", {VALUE: f"{metric}/{name}"})
                row[system] = value
    if not rows:
        return ""
    listed: list[Row] = list(rows.values())
    return (
        "<details><summary>Values of these clips</summary>"
        f'<div class="wide" tabindex="0">{html_table(listed)}</div></details>\n'
    )


def _player(row: SheetRow, source: str, *, label: str) -> str:
    height, width = row.frames.shape[1:3]
    kind = ' class="small"' if height <= 128 else ""
    poster = _webp(Image.fromarray(row.frames[0].cpu().numpy()))
    return (
        f'<video{kind} controls playsinline preload="metadata" width="{width}" '
        f'height="{height}" poster="{poster}" src="{source}" aria-label="{html.escape(label)}">'
        "This browser cannot play the video.</video>"
    )


def _strips(number: int, rows: Sequence[SheetRow]) -> str:
    if not rows:
        return ""
    image = sheet_image(rows, num_columns=NUM_STRIP_COLUMNS)
    said = "; ".join(
        f"{row.label}: {len(row.beats_seconds or ())} beats, {len(row.rests_seconds)} rests"
        for row in rows
    )
    return (
        "<details open><summary>Frames over the spectrogram, beats of the music (blue), motion "
        '(white curve, dots where it rests)</summary><div class="wide" tabindex="0">'
        f'<img class="strip" width="{image.width}" height="{image.height}" '
        f'src="{_webp(image)}" alt="Cell {number}. {html.escape(said)}"></div></details>\n'
    )


def _webp(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=WEBP_QUALITY)
    return f"data:image/webp;base64,{_base64(file.getvalue())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
