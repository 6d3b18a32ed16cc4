"""The tempo of a piece of music where its name or its list says it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dance_eval.metrics.clip_folder import ClipEntry
from musicinfuser.aist_music import MUSIC_BPM, music_code

TEMPO_MARK = re.compile(r"^(.*?)_?tempo_(\d+(?:\.\d+)?)$")
"""End of a file's or folder's name that says at how many times its tempo a track is played."""
TOLERANCE = 0.08
"""Tempi further apart than this share are named as different; a tracker's grid is 2 to 5 %."""


def tempo_of(path: str | Path) -> tuple[str, float]:
    """Name of a track and the factor of its tempo, from its path.

    The file's stem or the nearest folder that ends in ``tempo_<factor>`` says it:
    ``song_tempo_0.75.wav`` and ``tempo_0.75/music/song.wav`` are ``song`` at 0.75 times its tempo.

    Returns:
        The stem without such an ending, and the factor, 1 if nothing says another.
    """
    path = Path(os.path.normpath(path))
    found = TEMPO_MARK.match(path.stem)
    name = found[1] if found else path.stem
    marks = [found, *(TEMPO_MARK.match(part) for part in reversed(path.parts[:-1]))]
    return name, next((float(mark[2]) for mark in marks if mark), 1.0)


def without_tempo(parts: Sequence[str]) -> tuple[str, ...]:
    """Folders and names without what `TEMPO_MARK` finds; those that say nothing else are gone."""
    marks = ((part, TEMPO_MARK.match(part)) for part in parts)
    return tuple(name for part, mark in marks if (name := mark[1] if mark else part))


def place_of(entry: ClipEntry, named: str | None) -> Path:
    """Where a sound that a clip's list names lies, or would lie; None: the clip itself."""
    return entry.file_of(named or entry.file) or entry.folder / (named or entry.file)


def known_bpm(entry: ClipEntry) -> float | None:
    """Beats per minute of a clip's music as it is played, by its list, else by its AIST name."""
    if entry.bpm is not None:
        return entry.bpm
    name, factor = tempo_of(place_of(entry, entry.track))
    code = music_code(name)
    return None if code is None else MUSIC_BPM[code] * factor


def tempo_disagreements(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on music in records of metrics.json with beats at another than the known tempo."""
    known = [r for r in records if r.get("music_bpm") and r.get("known_bpm")]
    found = {
        r.get("beats_file") or r["file"]: (r["music_bpm"], r["known_bpm"])
        for r in known
        if abs(r["music_bpm"] / r["known_bpm"] - 1) > TOLERANCE
    }
    if not found:
        return []
    listed = "; ".join(
        f"{Path(file).name} at {bpm:.0f} bpm, known {true:.0f}"
        for file, (bpm, true) in found.items()
    )
    num = len({r.get("beats_file") or r["file"] for r in known})
    return [
        f"Beats are at another tempo than the known one in {len(found)} of {num} files: {listed}."
    ]
