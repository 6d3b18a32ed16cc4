"""Captions of videos: texts beside them, and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.folders import file_key, files_below
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import FileIdentity
from musicinfuser.label_files import LabelError, read_csv, read_json_lines, read_text

_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
Tables = str | Path | Sequence[str | Path]
"""A table; a folder, for all ``captions*.jsonl`` and ``captions*.csv`` in it, sorted by name;
``"auto"``, for ``captions.jsonl`` or ``captions.csv`` beside the videos, then those of the folder
``captions`` there (where the caption job writes); or several of these in order."""


def read_caption_table(path: str | Path, *, root: Path | None = None) -> dict[str, str]:
    """Read a table of captions.

    Args:
        path: A ``.jsonl`` file with one object per line, or a ``.csv`` file with a header line, in
            UTF-8; the fields are ``file`` (path relative to the folder of videos) and ``caption``.
        root: Folder of the videos. Captions that a model wrote of a video that is another one now
            are left out.

    Returns:
        Caption by `file_key`, stripped; empty ones are left out.

    Raises:
        LabelError: If the table is unreadable, lacks a field, or gives a file two captions.
    """
    path = Path(path)
    rows: Sequence[tuple[int, Mapping[str, str]]]
    if path.suffix == ".csv":
        rows = read_csv(path, required=("file", "caption"), others=True)
    elif path.suffix == ".jsonl":
        rows = read_json_lines(path)
    else:
        raise LabelError(path, "is no table of captions: its name must end in .jsonl or .csv.")
    captions: dict[str, str] = {}
    for line, row in rows:
        file, caption = row.get("file"), row.get("caption")
        if not isinstance(file, str) or not isinstance(caption, str) or not file.strip():
            raise LabelError(path, "each entry needs the texts 'file' and 'caption'.", line)
        identity, video = FileIdentity.from_attributes(row), root and root / file
        if identity and video and video.is_file() and not identity.is_that_of(video):
            continue
        key, caption = file_key(file.strip()), caption.strip()
        if captions.setdefault(key, caption) != caption:
            raise LabelError(
                path, f"{file!r} already has another caption; keep one of the two.", line
            )
    return {key: caption for key, caption in captions.items() if caption}


def find_caption_tables(root: Path, captions: Tables) -> list[Path]:
    """The tables that ``captions`` stands for, with videos in ``root``.

    Raises:
        UserError: If ``"auto"`` finds a jsonl and a csv file, or a named folder holds no table.
    """
    if not isinstance(captions, str | Path):
        return [path for entry in captions for path in find_caption_tables(root, entry)]
    if captions == "auto":
        single = [path for path in tables_in(root) if path.stem == "captions"]
        if len(single) > 1:
            raise UserError(
                f"{root} holds both captions.jsonl and captions.csv; keep one, or name one."
            )
        return single + tables_in(written_captions(root))
    path = Path(captions)
    tables = tables_in(path) if path.is_dir() else [path]
    if not tables:
        raise UserError(f"{path} holds no table of captions (captions*.jsonl or captions*.csv).")
    return tables


def tables_in(folder: Path) -> list[Path]:
    """The tables ``captions*`` of a folder, sorted by name; none if it does not exist."""
    found = folder.glob("captions*")
    return sorted(p for p in found if p.suffix in (".jsonl", ".csv") and p.is_file())


def written_captions(root: Path) -> Path:
    """The folder of tables that the caption job writes for a folder of videos."""
    return root / "captions"


def read_captions(root: Path, captions: Tables) -> dict[str, str]:
    """Captions by `file_key`, of several tables; the first table that has one for a file counts.

    Raises:
        LabelError: As `read_caption_table`.
        UserError: As `find_caption_tables`.
    """
    found: dict[str, str] = {}
    for path in find_caption_tables(root, captions):
        found = read_caption_table(path, root=root) | found
    return found


def unread_texts(root: Path, videos: Sequence[Path], captions: Tables) -> list[str]:
    """Texts and tables of captions below a folder that are not read, by relative path, sorted."""
    beside = {video.with_suffix(".txt") for video in videos}
    read = {path.resolve() for path in find_caption_tables(root, captions)}
    texts = filter(_may_hold_captions, files_below(root))
    unread = (path for path in texts if path not in beside and path.resolve() not in read)
    return sorted(file_key(path.relative_to(root)) for path in unread)


def _may_hold_captions(path: Path) -> bool:
    name, suffix = path.name.lower(), path.suffix.lower()
    return suffix == ".txt" or (name.startswith("caption") and suffix in _TABLE_SUFFIXES)


def find_caption(video: Path, root: Path, table: Mapping[str, str]) -> str:
    """The text beside a video (``dance.mp4`` and ``dance.txt``), or else its entry in a table.

    Returns:
        The text, stripped; empty if there is neither.

    Raises:
        LabelError: If the text is not UTF-8.
    """
    path = video.with_suffix(".txt")
    text = read_text(path).strip() if path.is_file() else ""
    return text or table.get(file_key(video.relative_to(root)), "")
