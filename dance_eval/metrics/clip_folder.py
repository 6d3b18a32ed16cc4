"""The lists of clips that folders hold: manifest.jsonl, clips.csv or just mp4 files."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from musicinfuser.errors import UserError, looked_for
from musicinfuser.fingerprint import file_digest
from musicinfuser.generation_requests import MANIFEST_NAME
from musicinfuser.label_files import LabelError, csv_rows, read_csv

CLIP_TABLE_NAME = "clips.csv"
REQUIRED_COLUMNS = ("file", "system", "track")
START_COLUMNS = ("start", "track_offset_seconds")
"""Two names for one thing: that of people and that of a manifest."""
OPTIONAL_COLUMNS = (
    *(*START_COLUMNS, "prompt", "seed", "heard", "heard_offset_seconds"),
    *("num_frames", "fps", "bpm", "sha256", "image"),
)


class ClipListError(UserError):
    """A folder offers no usable list of clips. The message is one sentence."""


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a folder, not yet opened. What its list does not say is None."""

    folder: Path
    file: str
    """The video, relative to the folder."""
    system: str
    """What made it."""
    track: str | None = None
    """The music as named by the list."""
    track_offset_seconds: float = 0.0
    """Where in the track the clip starts."""
    num_frames: int | None = None
    """None to take all."""
    fps: float | None = None
    """Frame rate; None to take the file's."""
    sha256: str | None = None
    """What the list says about the content."""
    prompt: str | None = None
    """The text that the clip was generated for."""
    seed: int | None = None
    """What its generation was seeded with."""
    heard: str | None = None
    """What it was conditioned on in place of the track: a file, ``silence`` or ``nothing``;
    None: the track."""
    heard_offset_seconds: float | None = None
    """Where in that file the clip starts; None: where it starts in the track."""
    listed: str | None = None
    """File and line of the list that names the clip."""
    track_sha256: str | None = None
    """Content of the track when the clip was scored."""
    bpm: float | None = None
    """Tempo of the track as it is played, in beats per minute."""
    image: str | None = None
    """A picture that the clip was made to begin with."""
    problem: str | None = None
    """Why the clip cannot be scored, known from the list alone."""

    @property
    def path(self) -> Path:
        """The video file."""
        return self.folder / self.file

    def file_of(self, named: str) -> Path | None:
        """A file that the list names, from its folder or the working directory; None without."""
        # A text in the wrong column can be too long for a file name.
        with suppress(OSError):
            return next((p for p in (self.folder / named, Path(named)) if p.is_file()), None)
        return None


def content_digest(path: Path | None) -> str | None:
    """SHA-256 of a file's content; None without one that can be read."""
    with suppress(OSError):
        return None if path is None else file_digest(path)
    return None


def list_clips(folder: Path | str) -> tuple[list[ClipEntry], list[str]]:
    """List the clips of a folder by its manifest.jsonl, its clips.csv or its mp4 files.

    A manifest is what `train.py predict` writes; of two lines for one file the later counts. A
    clips.csv has the columns file, system, track and, if wanted, start (seconds from the track's
    beginning; or track_offset_seconds), prompt, seed, heard, heard_offset_seconds, num_frames, fps,
    bpm (of the track), sha256 and image (a picture that the clip begins with); mp4 files it leaves
    out are listed as well. Where no system is named, it is the folder's name.

    Returns:
        The clips, sorted by file, and the mp4 files that a manifest leaves out.

    Raises:
        ClipListError: If the folder does not exist or holds no clip, or its clips.csv has columns
            or a line that cannot be read, or two lines for one file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ClipListError(
            f"{folder}: is not a folder{looked_for(folder)}; give the folder that holds the clips."
        )
    system = folder.resolve().name
    has_manifest = (folder / MANIFEST_NAME).is_file()
    entries = (_manifest_entries if has_manifest else _table_entries)(folder, system)
    listed = {_place(folder, entry.file) for entry in entries}
    videos = sorted(path.name for path in folder.glob("*.mp4"))
    unlisted = [name for name in videos if _place(folder, name) not in listed]
    if not has_manifest:
        entries += [ClipEntry(folder, name, system) for name in unlisted]
        unlisted = []
    if not entries:
        raise ClipListError(f"{folder}: holds no clips; expected {MANIFEST_NAME} or *.mp4 files.")
    return sorted(entries, key=lambda entry: entry.file), unlisted


def _place(folder: Path, file: str) -> str:
    """One text for all names of a file, such as ``./a.mp4`` and ``/data/clips/a.mp4``."""
    return os.path.abspath(folder / file)


def _entry(folder: Path, default_system: str, row: Mapping[str, Any], place: str) -> ClipEntry:
    """Read one row of a list; UserError, KeyError or TypeError if it makes no sense."""

    def text(key: str) -> str | None:
        return None if row.get(key) in (None, "") else str(row[key])

    def number(key: str, *, above: float, is_whole: bool = False) -> Any:
        if text(key) is None:
            return None
        try:
            value = float(row[key])
        except (ValueError, OverflowError):
            value = math.nan
        if not (math.isfinite(value) and value >= above) or (is_whole and value % 1):
            kind = "a whole number" if is_whole else "a number"
            limit = f" from {above:g} on" if math.isfinite(above) else ""
            raise UserError(f"{key} is {row[key]!r}; give {kind}{limit}")
        # Seeds may have more digits than a float.
        return int(Decimal(row[key])) if is_whole else value

    if not row["file"]:
        raise UserError("file is empty; name the video")
    start = next(filter(text, START_COLUMNS), START_COLUMNS[0])
    return ClipEntry(
        folder=folder,
        file=str(row["file"]),
        system=text("system") or default_system,
        track=text("track"),
        track_offset_seconds=number(start, above=0) or 0.0,
        num_frames=number("num_frames", above=1, is_whole=True),
        fps=number("fps", above=1e-3),
        bpm=number("bpm", above=1),
        sha256=text("sha256"),
        prompt=text("prompt"),
        seed=number("seed", above=-math.inf, is_whole=True),
        heard=text("heard"),
        image=text("image"),
        heard_offset_seconds=number("heard_offset_seconds", above=0),
        listed=place,
    )


def _manifest_entries(folder: Path, system: str) -> list[ClipEntry]:
    entries = {}
    path = folder / MANIFEST_NAME
    # Prompts may hold the other line breaks of Unicode.
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            entry = _entry(folder, system, json.loads(line), place)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = str(error) if isinstance(error, UserError) else type(error).__name__
            reason = f"{place}: not a manifest line ({said}); repeat the predict command"
            entry = ClipEntry(folder, f"{MANIFEST_NAME}:{number}", system, problem=reason)
        entries[_place(folder, entry.file)] = entry
    systems = {entry.system for entry in entries.values() if entry.problem is None}
    if len(systems) == 1:  # what a line that cannot be read would have said
        [system] = systems
    return [e if e.problem is None else replace(e, system=system) for e in entries.values()]


def _table_entries(folder: Path, system: str) -> list[ClipEntry]:
    path = folder / CLIP_TABLE_NAME
    if not path.is_file():
        return []
    lacking: list[str] = []
    try:
        _, names = next(csv_rows(path), (1, []))
        lacking = [name for name in REQUIRED_COLUMNS if name not in map(str.strip, names)]
        rows = read_csv(path, required=REQUIRED_COLUMNS, optional=OPTIONAL_COLUMNS)
    except LabelError as error:
        lacks = f" It lacks the columns {', '.join(lacking)}." if lacking else ""
        raise ClipListError(f"{error}{lacks}") from error
    entries: dict[str, ClipEntry] = {}
    for line, row in rows:
        place = f"{path}, line {line}"
        if set(START_COLUMNS) <= row.keys():
            both = " and ".join(START_COLUMNS)
            raise ClipListError(f"{path}, line 1: has both columns {both}; keep one.")
        try:
            entry = _entry(folder, system, row, place)
        except UserError as error:
            raise ClipListError(f"{place}: {error}.") from None
        other = entries.setdefault(_place(folder, entry.file), entry)
        if other is not entry:
            raise ClipListError(
                f"{place}: {entry.file} is described in {other.listed}, too; keep one of the lines."
            )
    return list(entries.values())
