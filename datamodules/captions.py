"""Captions: sentences made from AIST names, and text files beside videos of any other folder.

The four templates are those of Table 8 to the letter, the slip "in a advanced dance setting"
included, because models adapted with them have read exactly these words.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch

from datamodules.aist_names import AISTName, dancers_of, tables
from datamodules.folders import files_below
from musicinfuser import keyed_random
from musicinfuser.errors import UserError
from musicinfuser.file_identity import FileIdentity
from musicinfuser.label_files import LabelError, read_csv, read_json_lines, read_text

AIST_TEMPLATES = (
    "{dancers_text} dancing {genre_name} in a {situation_name} setting in a studio with a white"
    " backdrop, captured from a {camera_view}",
    "a {camera_view} video of {dancers_text} performing {genre_name} choreography against a white"
    " background in a {situation_name} scene",
    "{dancers_text} executing {genre_name} movements in a minimalist studio space in a"
    " {situation_name} setting, shot from a {camera_view}",
    "a {genre_name} dance performance by {dancers_text} in a pristine white studio, {camera_view},"
    " {situation_name}",
)
"""Table 8, in the order of the authors' code."""

AIST_TEMPLATE_WITHOUT_GENRE = (
    "{dancers_text} dancing in a {situation_name} setting in a studio with a white backdrop,"
    " captured from a {camera_view}"
)
"""Our own, for showcases, cyphers and battles, whose names state no genre."""

AIST_BASE_CAPTION = "a professional dancer dancing in a studio with a white backdrop"
"""Stands in for an AIST caption in a part of the training steps (Table 8, section 4.5)."""

YOUTUBE_BASE_CAPTION = "a dance video"
"""The same for videos from the wild (Table 8)."""

YOUTUBE_EMPTY_CAPTION = "a YouTube dance video"
"""Caption of a video that has none (authors' code)."""

MAX_NAMED_DANCERS = 3
_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")


def dancers_text(genders: Sequence[str]) -> str:
    """Name the dancers one by one, as the authors' code does.

    Args:
        genders: ``"male"`` or ``"female"`` per dancer, in the order of the file name; at least one.

    Returns:
        For example "a professional male dancer, a professional female dancer and a professional
        male dancer": commas, then "and" without a comma before it.
    """
    phrases = [f"a professional {gender} dancer" for gender in genders]
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def aist_caption(name: AISTName, *, template_index: int) -> str:
    """Caption a recording from its name.

    Args:
        name: Parsed name of a video (not ``cAll``).
        template_index: Which of the four templates, 0 to 3. Names without a genre have one form
            only and ignore it.
    """
    known = tables()
    dancers = dancers_of(name) or ()
    words = {
        "situation_name": known.situations[name.situation],
        "camera_view": known.cameras[name.camera],
        "dancers_text": dancers_text([known.dancers[dancer].gender for dancer in dancers])
        if 0 < len(dancers) <= MAX_NAMED_DANCERS
        else "a group of professional dancers",
    }
    if name.genre is None:
        return AIST_TEMPLATE_WITHOUT_GENRE.format(**words)
    return AIST_TEMPLATES[template_index].format(genre_name=known.genres[name.genre], **words)


def draw_template(clip_id: str, *, seed: int) -> int:
    """Draw one of the four templates for a clip, 0 to 3, equally likely.

    The authors draw once per file and lose the captions of files cut more than once; here every
    clip has its own draw.
    """
    stream = keyed_random.generator(seed, clip_id, "caption template")
    return int(torch.randint(len(AIST_TEMPLATES), (), generator=stream))


def file_key(path: str | PurePath) -> str:
    """A relative path in one spelling: forward slashes, composed Unicode.

    Captions are looked up by it. File systems differ in how they store an accent (macOS decomposes
    it), and tables written elsewhere differ with them. Bytes that are no Unicode become U+FFFD.
    """
    text = PurePath(str(path).replace("\\", "/")).as_posix()
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", valid)


def read_caption_table(path: str | Path, *, root: Path | None = None) -> dict[str, str]:
    """Read a table of captions.

    Args:
        path: A ``.jsonl`` file with one object per line, or a ``.csv`` file with a header line;
            both with the fields ``file`` (path relative to the folder of videos) and ``caption``,
            in UTF-8.
        root: Folder of the videos. What the caption job said of a video that is another one now is
            left out.

    Returns:
        Caption by :func:`file_key`, stripped; empty ones are left out.

    Raises:
        LabelError: If the table is unreadable, lacks a field, or gives a file two captions.
    """
    path = Path(path)
    rows: Sequence[tuple[int, Mapping[str, object]]]
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
        if root is not None and _is_of_another_video(row, root / file):
            continue
        key, caption = file_key(file.strip()), caption.strip()
        if captions.get(key, caption) != caption:
            raise LabelError(
                path, f"{file!r} already has another caption; keep one of the two.", line
            )
        captions[key] = caption
    return {key: caption for key, caption in captions.items() if caption}


def _is_of_another_video(row: Mapping[str, Any], video: Path) -> bool:
    identity = FileIdentity.from_attributes(row)
    return identity is not None and video.is_file() and not identity.is_that_of(video)


def find_caption_tables(root: Path, captions: str | Path) -> list[Path]:
    """The tables that one entry of ``captions`` stands for.

    Args:
        root: Folder of the videos.
        captions: A table; a folder, for all ``captions*.jsonl`` and ``captions*.csv`` in it, sorted
            by name; or ``"auto"``, for ``captions.jsonl`` or ``captions.csv`` in ``root``, then
            those of the folder ``captions`` in ``root`` (where the caption job writes).

    Raises:
        ValueError: If ``root`` holds both of the former, or a named folder no table.
    """
    if captions == "auto":
        single = [
            root / name for name in ("captions.jsonl", "captions.csv") if (root / name).is_file()
        ]
        if len(single) > 1:
            raise UserError(
                f"{root} holds both captions.jsonl and captions.csv; keep one, or name one."
            )
        return single + tables_in(written_captions(root))
    path = Path(captions)
    if not path.is_dir():
        return [path]
    if tables := tables_in(path):
        return tables
    raise UserError(f"{path} holds no table of captions (captions*.jsonl or captions*.csv).")


def tables_in(folder: Path) -> list[Path]:
    """The tables ``captions*`` of a folder, sorted by name; none if it does not exist."""
    return sorted(p for p in folder.glob("captions*") if p.suffix in (".jsonl", ".csv"))


def written_captions(root: Path) -> Path:
    """The folder of tables that the caption job writes for a folder of videos."""
    return root / "captions"


def read_captions(root: Path, captions: str | Path | Sequence[str | Path]) -> dict[str, str]:
    """The captions of several tables as one; the first table that has one for a file counts.

    Args:
        root: Folder of the videos.
        captions: One entry as `find_caption_tables` takes it, or several in order.

    Returns:
        Caption by :func:`file_key`.

    Raises:
        LabelError: As `read_caption_table`.
        ValueError: As `find_caption_tables`.
    """
    found: dict[str, str] = {}
    for path in _tables(root, captions):
        found = read_caption_table(path, root=root) | found
    return found


def _tables(root: Path, captions: str | Path | Sequence[str | Path]) -> list[Path]:
    entries = [captions] if isinstance(captions, str | Path) else captions
    return [path for entry in entries for path in find_caption_tables(root, entry)]


def unread_texts(
    root: Path, videos: Sequence[Path], captions: str | Path | Sequence[str | Path]
) -> list[str]:
    """Texts and tables of captions below a folder that are not read, by relative path, sorted.

    Args:
        root: Folder of the videos.
        videos: All videos in it.
        captions: As in `read_captions`.
    """
    beside = {video.with_suffix(".txt") for video in videos}
    read = {path.resolve() for path in _tables(root, captions)}
    texts = filter(_may_hold_captions, files_below(root))
    unread = (path for path in texts if path not in beside and path.resolve() not in read)
    return sorted(file_key(path.relative_to(root)) for path in unread)


def _may_hold_captions(path: Path) -> bool:
    name, suffix = path.name.lower(), path.suffix.lower()
    return suffix == ".txt" or (name.startswith("caption") and suffix in _TABLE_SUFFIXES)


def find_caption(video: Path, root: Path, table: Mapping[str, str]) -> str:
    """The text beside a video, or else its entry in a table; empty if it has neither.

    Raises:
        LabelError: If the text is not UTF-8.
    """
    return read_caption_file(video) or table.get(file_key(video.relative_to(root)), "")


def find_captions(
    videos: Sequence[Path], root: Path, table: Mapping[str, str]
) -> tuple[dict[Path, str], dict[Path, str]]:
    """`find_caption` of many videos.

    Returns:
        The captions, and why a text beside a video cannot be read, by video.
    """
    found: dict[Path, str] = {}
    reasons: dict[Path, str] = {}
    for video in videos:
        try:
            found[video] = find_caption(video, root, table)
        except LabelError as error:
            reasons[video] = f"its caption cannot be read: {error}"
    return found, reasons


def read_caption_file(video: Path) -> str:
    """The text beside a video (``dance.mp4`` and ``dance.txt``), stripped; empty if there is none.

    Raises:
        LabelError: If the file is not UTF-8 text.
    """
    path = video.with_suffix(".txt")
    return read_text(path).strip() if path.is_file() else ""
