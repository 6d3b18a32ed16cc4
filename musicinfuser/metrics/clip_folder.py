"""The lists of clips that folders hold: manifest.jsonl, clips.csv or just mp4 files."""

import csv
import errno
import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicinfuser.cells import MANIFEST_NAME
from musicinfuser.errors import UserError

CLIP_TABLE_NAME = "clips.csv"


class ClipListError(UserError):
    """A folder offers no usable list of clips. The message is one sentence."""


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a folder, not yet opened.

    Attributes:
        folder: The folder.
        file: The video, relative to the folder.
        system: What made it.
        track: The music as named by the list, or None.
        track_offset_seconds: Where in the track the clip starts.
        num_frames: Number of frames, or None to take all.
        fps: Frame rate, or None to take the file's.
        sha256: What the list says about the content, or None.
        prompt: The text that the clip was asked to show, or None.
        seed: What its generation was seeded with, or None.
        heard: What the model heard in place of the track: a file or ``nothing``; None: the track.
        problem: Why the clip cannot be scored, known from the list alone; else None.
    """

    folder: Path
    file: str
    system: str
    track: str | None = None
    track_offset_seconds: float = 0.0
    num_frames: int | None = None
    fps: float | None = None
    sha256: str | None = None
    prompt: str | None = None
    seed: int | None = None
    heard: str | None = None
    problem: str | None = None

    @property
    def path(self) -> Path:
        """The video file."""
        return self.folder / self.file


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
        OSError: If it cannot be read, or is a pipe or device, which may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def list_clips(folder: Path | str) -> tuple[list[ClipEntry], list[str]]:
    """List the clips of a folder by its manifest.jsonl, its clips.csv or its mp4 files.

    A manifest is what `train.py predict` writes; of two lines for one file the later counts. A
    clips.csv has the columns file, system, track and, if wanted, track_offset_seconds, prompt, seed
    and heard; mp4 files it leaves out are listed as well. Where no system is named, it is the
    folder's name.

    Args:
        folder: Where to look; subfolders only by what the lists name.

    Returns:
        The clips, sorted by file, and the mp4 files that a manifest leaves out.

    Raises:
        ClipListError: If the folder does not exist, holds no clip or its clips.csv lacks columns.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ClipListError(f"{folder}: is not a folder; give the folder that holds the clips.")
    system = folder.resolve().name
    videos = sorted(path.name for path in folder.glob("*.mp4"))
    unlisted: list[str] = []
    if (folder / MANIFEST_NAME).is_file():
        entries = _manifest_entries(folder, system)
        listed = {entry.file for entry in entries}
        unlisted = [name for name in videos if name not in listed]
    else:
        entries = _table_entries(folder, system)
        listed = {entry.file for entry in entries}
        entries += [ClipEntry(folder, name, system) for name in videos if name not in listed]
    if not entries:
        raise ClipListError(f"{folder}: holds no clips; expected {MANIFEST_NAME} or *.mp4 files.")
    return sorted(entries, key=lambda entry: entry.file), unlisted


def _entry(folder: Path, default_system: str, row: dict[str, Any]) -> ClipEntry:
    """Read one row of a list; KeyError, TypeError or ValueError if it makes no sense."""

    def number(key: str) -> float | None:
        return float(row[key]) if row.get(key) not in (None, "") else None

    num_frames, seed = number("num_frames"), number("seed")
    return ClipEntry(
        folder=folder,
        file=str(row["file"]),
        system=str(row.get("system") or default_system),
        track=str(row["track"]) if row.get("track") else None,
        track_offset_seconds=number("track_offset_seconds") or 0.0,
        num_frames=None if num_frames is None else int(num_frames),
        fps=number("fps"),
        sha256=row.get("sha256") or None,
        prompt=str(row["prompt"]) if row.get("prompt") not in (None, "") else None,
        seed=None if seed is None else int(seed),
        heard=str(row["heard"]) if row.get("heard") else None,
    )


def _manifest_entries(folder: Path, system: str) -> list[ClipEntry]:
    entries = {}
    lines = (folder / MANIFEST_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = _entry(folder, system, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            name = f"{MANIFEST_NAME}:{number}"
            reason = f"not a manifest line ({type(error).__name__}); repeat the predict command"
            entry = ClipEntry(folder, name, system, problem=reason)
        entries[entry.file] = entry
    return list(entries.values())


def _table_entries(folder: Path, system: str) -> list[ClipEntry]:
    path = folder / CLIP_TABLE_NAME
    if not path.is_file():
        return []
    entries = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        missing = {"file", "system", "track"} - set(rows.fieldnames or ())
        if missing:
            names = ", ".join(sorted(missing))
            raise ClipListError(f"{path}: lacks the columns {names}; name them in the first line.")
        for number, row in enumerate(rows, start=2):
            try:
                entry = _entry(folder, system, row)
            except (ValueError, TypeError) as error:
                entry = ClipEntry(
                    folder, f"{CLIP_TABLE_NAME}:{number}", system, problem=f"not a row ({error})"
                )
            entries[entry.file] = entry
    return list(entries.values())
