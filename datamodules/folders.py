"""Finding videos in a folder."""

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from musicinfuser.errors import UserError, looked_for
from musicinfuser.media.errors import printable

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".insv", ".lrv"),
    *(".mkv", ".webm", ".avi", ".divx", ".flv", ".wmv", ".asf", ".ogv", ".ogm", ".nut"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".tod", ".mpg", ".mpeg", ".mpe", ".m2p", ".mod", ".vob"),
    *(".mxf", ".dv", ".rm", ".rmvb", ".amv", ".gxf", ".wtv"),
)
"""Endings of videos that FFmpeg reads; those it does not know are named as unreadable."""
MASK_MARK = ".mask"
"""Before the ending of a video that is the mask of another one."""
# What lies beside videos and is none: captions, pictures, sound, what downloaders leave.
_BESIDE_SUFFIXES = (
    *(".txt", ".csv", ".json", ".jsonl", ".md", ".srt", ".vtt", ".ass", ".lrc", ".description"),
    *(".jpg", ".jpeg", ".png", ".webp", ".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac"),
    *(".yaml", ".yml", ".nfo", ".html", ".log", ".zip", ".part", ".ytdl"),
)


def file_key(path: str | PurePath) -> str:
    """A relative path in one spelling: forward slashes, composed Unicode.

    Captions are looked up by it. File systems differ in how they store an accent (macOS decomposes
    it), and tables written elsewhere differ with them. Bytes that are no Unicode become U+FFFD.
    """
    text = PurePath(str(path).replace("\\", "/")).as_posix()
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", valid)


def find_videos(root: Path) -> list[Path]:
    """All videos below a folder, links to folders included, sorted by relative path.

    Those that are masks of others, ``<name>.mask.mp4``, are not among them. A subfolder that cannot
    be listed is left out with a warning.

    Raises:
        UserError: If the folder is missing or holds no video.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} is not a folder{looked_for(root)}; give the folder that holds the videos."
        )
    videos = (path for path in files_below(root) if path.name.lower().endswith(VIDEO_SUFFIXES))
    found = [path for path in videos if not is_mask(path)]
    if not found:
        known = ", ".join(VIDEO_SUFFIXES)
        raise UserError(f"{root} holds no video ({known}); give the folder that holds the videos.")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def other_files(root: Path) -> list[str]:
    """Notes on files below a folder that are neither videos nor what lies beside them, if any."""
    known = {*VIDEO_SUFFIXES, *_BESIDE_SUFFIXES, ""}
    paths = list(files_below(root))
    masks = sum(is_mask(path) for path in paths)
    notes = [f"videos that are masks of others (<name>{MASK_MARK}.mp4): {masks}"] if masks else []
    endings = Counter(path.suffix.lower() for path in paths).most_common()
    others = [f"{number} {printable(ending)}" for ending, number in endings if ending not in known]
    return notes + ([f"files that are not taken for videos: {', '.join(others)}"] if others else [])


def is_mask(path: Path) -> bool:
    """Whether a file is named as the mask of a video."""
    return path.stem.endswith(MASK_MARK) and path.name.lower().endswith(VIDEO_SUFFIXES)


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


def select_files(root: Path, *, videos: Sequence[Path], files: Sequence[str] | None) -> list[Path]:
    """Those videos that a list names, by relative path or by bare name, in the order of ``videos``.

    Raises:
        UserError: If an entry of the list matches no video.
    """
    if files is None:
        return list(videos)
    wanted = set(files)
    keys = [{path.relative_to(root).as_posix(), path.name} for path in videos]
    unknown = sorted(wanted.difference(*keys))
    if unknown:
        raise UserError(
            f"'files' names {len(unknown)} videos that are not below {root} (first: {unknown[0]});"
            " give paths relative to it."
        )
    return [path for path, names in zip(videos, keys, strict=True) if names & wanted]
