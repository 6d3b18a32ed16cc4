"""Finding videos in a folder."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from musicinfuser.errors import UserError, looked_for
from musicinfuser.media.errors import printable

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".insv", ".lrv"),
    *(".mkv", ".webm", ".avi", ".divx", ".flv", ".wmv", ".asf", ".ogv", ".ogm", ".nut"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".tod", ".mpg", ".mpeg", ".mpe", ".m2p", ".mod", ".vob"),
    *(".mxf", ".dv", ".rm", ".rmvb", ".amv", ".gxf", ".wtv"),
)
"""Endings of videos that FFmpeg reads; those it does not know are named as unreadable."""
# What lies beside videos and is none: captions, pictures, sound, what downloaders leave.
_BESIDE_SUFFIXES = (
    *(".txt", ".csv", ".json", ".jsonl", ".md", ".srt", ".vtt", ".ass", ".lrc", ".description"),
    *(".jpg", ".jpeg", ".png", ".webp", ".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac"),
    *(".yaml", ".yml", ".nfo", ".html", ".log", ".zip", ".part", ".ytdl"),
)


def find_videos(root: Path, *, suffixes: Iterable[str] = VIDEO_SUFFIXES) -> list[Path]:
    """All videos below a folder, links to folders included, sorted by relative path.

    A subfolder that cannot be listed is left out with a warning.

    Args:
        root: The folder.
        suffixes: File endings with the dot, lower case. Names that start with a dot never count.

    Raises:
        ValueError: If the folder is missing or holds no such file.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} is not a folder{looked_for(root)}; give the folder that holds the videos."
        )
    endings = tuple(suffixes)
    found = [path for path in files_below(root) if path.name.lower().endswith(endings)]
    if not found:
        raise UserError(
            f"{root} holds no video ({', '.join(endings)}); give the folder that holds the videos."
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def other_files(root: Path) -> list[str]:
    """A note on files below a folder that are neither videos nor what lies beside them, if any."""
    known = {*VIDEO_SUFFIXES, *_BESIDE_SUFFIXES, ""}
    endings = Counter(path.suffix.lower() for path in files_below(root)).most_common()
    others = [f"{number} {printable(ending)}" for ending, number in endings if ending not in known]
    return [f"files that are not taken for videos: {', '.join(others)}"] if others else []


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, those with a dot in front left out, in any order."""
    visited = set()
    for folder, subfolders, names in os.walk(root, onerror=_warn, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _warn(error: OSError) -> None:
    warnings.warn(
        f"{error.filename} is left out: it cannot be listed ({error.strerror}).", stacklevel=3
    )


def select_files(root: Path, *, videos: Sequence[Path], files: Sequence[str]) -> list[Path]:
    """Those videos that a list names, by relative path or by bare name, in the order of ``videos``.

    Raises:
        ValueError: If an entry of the list matches no video.
    """
    wanted = set(files)
    keys = [{path.relative_to(root).as_posix(), path.name} for path in videos]
    unknown = sorted(wanted.difference(*keys))
    if unknown:
        raise UserError(
            f"'files' names {len(unknown)} videos that are not below {root} (first: {unknown[0]});"
            " give paths relative to it."
        )
    return [path for path, names in zip(videos, keys, strict=True) if names & wanted]
