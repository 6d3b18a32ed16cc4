"""Finding videos in a folder."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from musicinfuser.errors import UserError, looked_for


def find_videos(root: Path, *, suffixes: Iterable[str]) -> list[Path]:
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
    endings, found, visited = tuple(suffixes), [], set()
    for folder, subfolders, names in os.walk(root, onerror=_warn, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in names
            if name.lower().endswith(endings) and not name.startswith(".")
        ]
    if not found:
        raise UserError(
            f"{root} holds no video ({', '.join(endings)}); give the folder that holds the videos."
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


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
