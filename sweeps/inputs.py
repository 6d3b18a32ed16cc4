"""Files and folders that a run reads, known by their content."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from musicinfuser.atomic_files import write_text
from musicinfuser.fingerprint import file_digest, known_digests
from musicinfuser.label_files import LabelError, csv_rows, parse_json, read_lines

MEMO_NAME = "inputs.json"
NO_INPUTS = frozenset(
    ("default_root_dir", "dirpath", "save_dir", "output_dir", "output", "class_path", "finished")
)
"""Options that name what is written, or no path."""
LISTS = (".csv", ".jsonl")
NAMED_IN_LISTS = ("track", "heard")
FOLDER_LISTS = ("manifest.jsonl", "clips.csv")


def named_paths(*settings: object) -> tuple[str, ...]:
    """Every file or folder that nested settings name, as they name it; dotted keys do as well."""
    return tuple(dict.fromkeys(path for value in settings for path in _paths(value)))


def contents(paths: Iterable[str]) -> dict[str, str]:
    """The digest of each path; of lists of clips or requests also of the sounds they name.

    A file whose size and time are those of an earlier look is not read again.
    """
    found = {}
    for path in paths:
        found[path] = _content(Path(path).absolute())
        for sound in _sounds(Path(path)):
            found[str(sound)] = _content(sound.absolute())
    return found


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Paths whose content is another one, or that only one of two looks found."""
    return sorted(p for p in before.keys() | now.keys() if before.get(p) != now.get(p))


def look_again() -> None:
    """Forget what files and folders held; files are read again if their size or time changed."""
    _content.cache_clear()


def read_memo(folder: Path) -> None:
    """Take the digests that an earlier process kept; a file that cannot be used costs time only."""
    with suppress(OSError, ValueError, TypeError):
        text = (folder / MEMO_NAME).read_text(encoding="utf-8")
        known = {
            name: (list(when), str(digest)) for name, (when, digest) in json.loads(text).items()
        }
        known_digests.update(known | known_digests)


def write_memo(folder: Path) -> None:
    """Keep the digests of this process for the next one."""
    write_text(folder / MEMO_NAME, json.dumps(known_digests) + "\n")


def _paths(value: object, key: str = "") -> Iterator[str]:
    if key.rpartition(".")[2] in NO_INPUTS:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _paths(inner, str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _paths(inner, key)
    elif isinstance(value, str) and value:
        with suppress(OSError, ValueError):  # a prompt can be too long for a path
            if Path(value).exists():
                yield value


@functools.cache
def _content(path: Path) -> str:
    if path.is_dir():
        digest, num_files = hashlib.blake2b(digest_size=8), 0
        for file in _files_of(path):
            digest.update(f"{file.relative_to(path).as_posix()}={_content(file)};".encode())
            num_files += 1
        return f"{num_files} files, {digest.hexdigest()}"
    try:
        return file_digest(path, "sampled")
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _files_of(folder: Path) -> Iterator[Path]:
    """All files, sorted; names that begin with a dot are of writers that are not done."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _files_of(Path(entry.path))
        elif entry.is_file() and not entry.name.startswith("."):
            yield Path(entry.path)


def _sounds(path: Path) -> Iterator[Path]:
    """The sounds that a list of requests, or the list of a folder of clips, names."""
    lists = [path / name for name in FOLDER_LISTS] if path.is_dir() else [path]
    named: dict[str, None] = {}
    for file in lists:
        if file.suffix in LISTS and file.is_file():
            named |= dict.fromkeys(_named(file))
    for text in named:
        with suppress(OSError, ValueError):
            places = ((path if path.is_dir() else path.parent) / text, Path(text))
            if sound := next((place for place in places if place.is_file()), None):
                yield sound
                # Clips are scored with the known beats beside their music.
                beats = sound.with_suffix(".json")
                if path.is_dir() and beats.is_file():
                    yield beats


def _named(file: Path) -> Iterator[str]:
    """Sounds that a list names; one that cannot be read is refused where it is used."""
    with suppress(LabelError):
        if file.suffix == ".csv":
            lines = csv_rows(file)
            names = [name.strip() for name in next(lines, (1, []))[1]]
            rows = (dict(zip(names, map(str.strip, row), strict=False)) for _, row in lines)
        else:
            rows = (parse_json(line, file) for _, line in read_lines(file))
        for row in rows:
            for name in NAMED_IN_LISTS if isinstance(row, Mapping) else ():
                if isinstance(text := row.get(name), str) and text:
                    yield text
