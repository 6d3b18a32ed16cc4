"""Counts and thumbnails of a cache of encoded clips, written to a folder."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from datamodules.cutting import MIN_FILES_FOR_PROGRESS_BAR
from datamodules.summary import (
    LeftOut,
    clip_counts,
    counts_text,
    left_out_counts,
    left_out_kind,
    phrase,
    read_left_out,
    totals,
)
from datamodules.thumbnails import Picture, clip_picture, file_picture, take_pictures
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import looked_for
from musicinfuser.html_pages import render
from musicinfuser.media.latents import (
    CacheError,
    ClipHeader,
    current_clips,
    read_clip_header,
    stored_clips,
)

PICTURES_PER_GROUP = 12
Item = TypeVar("Item")


@dataclass(frozen=True)
class Card:
    """One thumbnail and what is said under it.

    Attributes:
        title: First line, such as the clip's name.
        text: The caption, or why there is no clip.
        facts: Split, size, start, ...
        picture: A JPEG file, or a sentence in its place.
    """

    title: str
    text: str
    facts: Sequence[str]
    picture: Picture


@dataclass(frozen=True)
class Group:
    """Thumbnails under one heading, and of how many they were chosen."""

    title: str
    cards: Sequence[Card]
    num_total: int


def write_report(
    cache_dir: str | Path, out: str | Path, *, pictures_per_group: int | None = PICTURES_PER_GROUP
) -> str:
    """Write ``counts.md`` and ``index.html`` into a folder.

    Args:
        cache_dir: Folder the encode job wrote.
        out: Folder to write to; it is made.
        pictures_per_group: Clips shown of each source, genre, camera and split, and files of each
            reason for leaving them out, evenly chosen; None shows all, 0 writes no page.

    Returns:
        The counts.

    Raises:
        CacheError: There is neither a clip nor a note of anything left out, or a file is broken.
    """
    clips, outdated = current_clips(cache_dir, _read_clips(cache_dir))
    left_out = read_left_out(cache_dir, clips) + [asdict(clip) for clip in outdated]
    if not clips and not left_out:
        raise CacheError(
            f"{cache_dir} holds no encoded clips"
            f"{looked_for(cache_dir)} and no list of what was left out."
        )
    text = counts_text(clips, left_out)
    write_text(Path(out, "counts.md"), text)
    if pictures_per_group != 0:
        page = render(
            "thumbnails.html",
            title=f"Clips of {cache_dir}",
            totals=totals(clips),
            counts=clip_counts(clips),
            left_out=left_out_counts(left_out) if left_out else [],
            groups=thumbnail_groups(clips, left_out, pictures_per_group),
        )
        write_text(Path(out, "index.html"), page)
    return text


def thumbnail_groups(
    clips: Sequence[ClipHeader], left_out: Sequence[LeftOut], pictures_per_group: int | None
) -> list[Group]:
    """Choose clips and files of every group and take their pictures.

    Args:
        clips: All clips of a cache.
        left_out: What was left out of it.
        pictures_per_group: How many of each; None takes all.
    """
    Section = tuple[str, list[Any], Callable[[Any], Picture], Callable[[Any, Picture], Card]]
    sections: list[Section] = []
    for title, own in _grouped(clips, _clip_title).items():
        sections.append((title, own, clip_picture, _clip_card))
    files = [row for row in left_out if "file" in row]
    for title, rows in _grouped(files, _left_out_title).items():
        sections.append((title, rows, lambda row: file_picture(Path(row["file"])), _left_out_card))
    chosen = [evenly_chosen(own, pictures_per_group) for _, own, *_ in sections]
    tasks = [
        partial(take, item)
        for (_, _, take, _), items in zip(sections, chosen, strict=True)
        for item in items
    ]
    pictures = iter(take_pictures(tasks))
    return [
        Group(title, [card(item, next(pictures)) for item in items], num_total=len(own))
        for (title, own, _, card), items in zip(sections, chosen, strict=True)
    ]


def evenly_chosen(items: Sequence[Item], number: int | None) -> list[Item]:
    """At most so many items, at even distances and in order; all of them for None."""
    if number is None or len(items) <= number:
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * number)] for k in range(number)]


def _read_clips(cache_dir: str | Path) -> list[ClipHeader]:
    paths = stored_clips(cache_dir)
    is_short = len(paths) < MIN_FILES_FOR_PROGRESS_BAR
    return [read_clip_header(p) for p in tqdm(paths, "reading headers", disable=is_short)]


def _grouped(items: Sequence[Item], title: Callable[[Item], str]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(title(item), []).append(item)
    return dict(sorted(groups.items()))


def _clip_title(clip: ClipHeader) -> str:
    kinds = [
        f"{key} {clip.attributes[key]}" for key in ("genre", "camera") if key in clip.attributes
    ]
    return ", ".join([clip.source, clip.split.replace("_", " "), *kinds])


def _clip_card(clip: ClipHeader, picture: Picture) -> Card:
    own = clip.attributes
    facts = {
        clip.split.replace("_", " "): True,
        clip.bucket: True,
        f"starts at {float(own.get('start_seconds', 'nan')):.2f} s": "start_seconds" in own,
        f"shot {own.get('shot')}": "shot" in own,
        f"music {clip.music}": clip.music,
        f"{own.get('audio_padded_seconds')} s of silence at the end": "audio_padded_seconds" in own,
    }
    return Card(
        clip.clip_id, clip.caption, [fact for fact, known in facts.items() if known], picture
    )


def _left_out_title(row: LeftOut) -> str:
    return f"{row['source']}, {left_out_kind(row)} left out: {phrase(row['reason'])}"


def _left_out_card(row: LeftOut, picture: Picture) -> Card:
    name = row.get("clip_id") or Path(row["file"]).name
    facts = ["middle of the video"] if isinstance(picture, bytes) else []
    return Card(name, row["reason"], facts, picture)
