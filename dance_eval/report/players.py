"""The clips of one music, prompt and seed on the page: players, and frames over the sound."""

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from dance_eval.contact_sheet import SheetRow, sheet_image
from dance_eval.metrics.matching import ClipGroup
from dance_eval.metrics.report import Document
from dance_eval.plots import COLOURS
from musicinfuser.atomic_files import atomic_file
from musicinfuser.html_pages import data_url

WEBP_QUALITY = 75
NUM_STRIP_COLUMNS = 8


@dataclass(frozen=True)
class Embedding:
    """Where the videos of a page go.

    Attributes:
        folder: The folder of the page.
        max_bytes: Larger videos lie beside the page, in ``videos/``.
        beside: What lies there: file, system and clip.
    """

    folder: Path
    max_bytes: int
    beside: list[str] = field(default_factory=list)

    def source(self, path: Path, *, name: str, label: str) -> str:
        """What the ``src`` of a video says; beside the page it has that name, and its label."""
        if path.stat().st_size <= self.max_bytes:
            return data_url(path.read_bytes(), "video/mp4")
        copy = self.folder / "videos" / f"{name}.mp4"
        with atomic_file(copy) as temporary:
            shutil.copyfile(path, temporary)
        self.beside.append(f"{copy.name}: {label}")
        return f"videos/{quote(copy.name)}"


def players(
    number: int,
    group: ClipGroup,
    drawn: Mapping[str, SheetRow],
    colours: Mapping[str, int],
    embedding: Embedding,
) -> list[Document]:
    """What ``report.html`` shows of each system in a group, whose number is counted from 1.

    Drawn are the clips that can be read, by system.
    """
    shown = []
    for system, colour in colours.items():
        entry, row = group.clips.get(system), drawn.get(system)
        player = {
            "system": system,
            "colour": colour % len(COLOURS),
            "file": "" if entry is None else entry.file,
            "video": "",
            "missing": "no clip of this group" if entry is None else "cannot be shown; see Failed",
        }
        if entry is not None and row is not None:
            height, width = row.frames.shape[1:3]
            player |= {
                "video": embedding.source(
                    entry.path, name=f"{number:02d}_{colour}", label=f"{system}, {entry.file}"
                ),
                "poster": _webp(Image.fromarray(row.frames[0].cpu().numpy())),
                "height": height,
                "width": width,
            }
        shown.append(player)
    return shown


def strip(rows: Sequence[SheetRow]) -> Document | None:
    """Frames over the sound of the clips of one group; None without clips."""
    if not rows:
        return None
    image = sheet_image(rows, num_columns=NUM_STRIP_COLUMNS)
    said = (
        f"{row.label}: {len(row.beats_seconds or ())} beats, {len(row.rests_seconds)} rests"
        for row in rows
    )
    size = {"width": image.width, "height": image.height}
    return {**size, "image": _webp(image), "said": "; ".join(said)}


def _webp(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=WEBP_QUALITY)
    return data_url(file.getvalue(), "image/webp")
