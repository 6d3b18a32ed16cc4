"""What is in a cache: ``python -m datamodules.report CACHE --out FOLDER``.

Writes counts and a page of thumbnails. Nothing is encoded; pictures come from the videos, where
they are still in place. The encode job does the same into ``CACHE/report``.
"""

import argparse
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from datamodules.clips import CROPS, crop_box
from datamodules.cutting import MIN_FILES_FOR_PROGRESS_BAR, ClipDataset
from musicinfuser.atomic_files import write_text
from musicinfuser.clip_size import names_of
from musicinfuser.errors import in_one_sentence, looked_for
from musicinfuser.html_pages import render
from musicinfuser.label_files import read_json_lines
from musicinfuser.media.errors import MediaError
from musicinfuser.media.latents import (
    CacheError,
    ClipHeader,
    current_clips,
    read_clip_header,
    stored_clips,
)
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.tables import Row, markdown_table

PICTURES_PER_GROUP = 12
LONGEST_SIDE_PX = 240
JPEG_QUALITY = 80
NUM_THREADS = 8
TIME_LIMIT_SECONDS = 60.0
"""For one picture; a page is not held up by one file."""

Item = TypeVar("Item")
Picture = bytes | str
"""A JPEG file, or the sentence why there is none."""
LeftOut = dict[str, Any]
"""What an encode job noted of one file or clip: ``source``, ``file``, ``reason`` and, of a clip,
``clip_id``; or how many were left out by choice: ``source``, ``kind``, ``reason`` and ``count``."""


@dataclass(frozen=True)
class Card:
    """One thumbnail and what is said under it."""

    group: str
    """The heading it stands under."""
    title: str
    """The clip's name, or the file's."""
    text: str
    """The caption, or why there is no clip."""
    facts: Sequence[str]
    """Split, size, start, ..."""
    take: Callable[[], Picture]


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
    paths = stored_clips(cache_dir)
    is_short = len(paths) < MIN_FILES_FOR_PROGRESS_BAR
    headers = [read_clip_header(p) for p in tqdm(paths, "reading headers", disable=is_short)]
    clips, outdated = current_clips(cache_dir, headers)
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
            left_out=left_out_counts(left_out),
            groups=[
                *_groups(map(_clip_card, clips, _buckets(clips)), pictures_per_group),
                *_groups(
                    (_file_card(row) for row in left_out if "file" in row), pictures_per_group
                ),
            ],
        )
        write_text(Path(out, "index.html"), page)
    return text


def evenly_chosen(items: Sequence[Item], number: int | None) -> list[Item]:
    """At most so many items, at even distances and in order; all of them for None."""
    if number is None or len(items) <= number:
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * number)] for k in range(number)]


def _buckets(clips: Iterable[ClipHeader]) -> list[str]:
    return names_of(clip.shape for clip in clips)


def _clip_card(clip: ClipHeader, bucket: str) -> Card:
    own, split = clip.attributes, clip.split.replace("_", " ")
    kinds = [f"{key} {own[key]}" for key in ("genre", "camera") if key in own]
    facts = {
        split: True,
        bucket: True,
        f"starts at {float(own.get('start_seconds', 'nan')):.2f} s": "start_seconds" in own,
        f"shot {own.get('shot')}": "shot" in own,
        f"music {clip.music}": clip.music,
        f"{own.get('audio_padded_seconds')} s of silence at the end": "audio_padded_seconds" in own,
    }

    return Card(
        ", ".join([clip.source, split, *kinds]),
        clip.clip_id,
        clip.caption,
        [fact for fact, known in facts.items() if known],
        lambda: _picture(Path(own.get("file", "")), clip),
    )


def _file_card(row: LeftOut) -> Card:
    file = Path(row["file"])
    return Card(
        f"{row['source']}, {left_out_kind(row)} left out: {phrase(row['reason'])}",
        row.get("clip_id") or file.name,
        row["reason"],
        ["a picture is of the middle of the video"],
        lambda: _picture(file),
    )


def _picture(path: Path, clip: ClipHeader | None = None) -> Picture:
    """The frame in the middle of a clip, cut as the clip was, or of a whole video."""
    own = {} if clip is None else clip.attributes
    if clip is not None and (own.get("crop") not in CROPS or "start_seconds" not in own):
        return "The clip does not say where it was cut."
    if not path.is_file():
        return f"{path} is no longer there."
    try:
        info = probe_video(path, time_limit_seconds=TIME_LIMIT_SECONDS)
        size, crop, seconds = (info.height, info.width), None, info.duration_seconds / 2
        if clip is not None:
            size, crop = clip.size, crop_box(info, size=clip.size, crop=own["crop"])
            seconds = float(own["start_seconds"]) + clip.recipe.num_frames // 2 / clip.recipe.fps
        height, width = (max(1, round(side * LONGEST_SIDE_PX / max(size))) for side in size)
        frames = read_clip(
            path,
            start_seconds=seconds,
            num_frames=1,
            height=height,
            width=width,
            crop=crop,
            time_limit_seconds=TIME_LIMIT_SECONDS,
        )
    except MediaError:
        return f"No frame of {path} can be read."
    file = io.BytesIO()
    Image.fromarray(frames[0].numpy()).save(file, format="JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _groups(cards: Iterator[Card], pictures_per_group: int | None) -> list[dict[str, Any]]:
    """Each group with some of its cards, as the template names them."""
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.group, []).append(card)
    chosen = {title: evenly_chosen(groups[title], pictures_per_group) for title in sorted(groups)}
    shown = [card for some in chosen.values() for card in some]
    options = {"desc": "thumbnails", "disable": len(shown) < MIN_FILES_FOR_PROGRESS_BAR}
    taken = thread_map(lambda card: card.take(), shown, max_workers=NUM_THREADS, **options)
    pictures = iter(taken)
    return [
        {
            "title": title,
            "num_total": len(groups[title]),
            "cards": [{**vars(card), "picture": next(pictures)} for card in some],
        }
        for title, some in chosen.items()
    ]


def left_out_of(dataset: ClipDataset) -> list[LeftOut]:
    """How many files a dataset leaves out, and how many shots give no clip.

    Returns:
        Rows with ``source``, ``kind`` (``"skipped"``, ``"not selected"`` or ``"shots"``),
        ``reason`` (of skipped files the fixed phrase) and ``count``, most frequent first.
    """
    kinds: dict[str, Counter[str]] = {
        "skipped": Counter(phrase(skip.reason) for skip in dataset.skipped),
        "not selected": dataset.num_not_selected,
        "shots": dataset.num_shots_left_out,
    }
    return [
        {"source": dataset.source, "kind": kind, "reason": reason, "count": count}
        for kind, counts in kinds.items()
        for reason, count in counts.most_common()
    ]


def read_left_out(cache_dir: str | Path, clips: Sequence[ClipHeader]) -> list[LeftOut]:
    """What the processes of encode jobs left out of a cache, each once.

    A list of an earlier job with more processes may still lie there, so what has been encoded since
    is passed over.
    """
    clip_ids = {(clip.source, clip.clip_id) for clip in clips}
    files = {clip.attributes.get("file") for clip in clips}
    counts: list[LeftOut] = []
    found: dict[tuple[str, str, str | None], LeftOut] = {}
    for path in sorted(Path(cache_dir).glob("skipped_rank*.jsonl")):
        for _, row in read_json_lines(path):
            if "count" in row:
                counts.append(row)
                continue
            source, file, clip_id = row["source"], row["file"], row.get("clip_id")
            is_encoded = (source, clip_id) in clip_ids if clip_id else file in files
            if not is_encoded:
                found.setdefault((source, file, clip_id), row)
    return [*found.values(), *counts]


def clip_counts(clips: Sequence[ClipHeader]) -> list[Row]:
    """Clips and videos of a cache per source, split, genre, camera and bucket, sorted."""
    videos: dict[tuple[str, ...], list[str]] = {}
    for clip, bucket in zip(clips, _buckets(clips), strict=True):
        genre, camera = (clip.attributes.get(key, "") for key in ("genre", "camera"))
        group = (clip.source, clip.split, genre, camera, bucket)
        videos.setdefault(group, []).append(clip.attributes.get("file", ""))
    names = ("source", "split", "genre", "camera", "size")
    return [
        dict(zip(names, group, strict=True)) | {"videos": len(set(files)), "clips": len(files)}
        for group, files in sorted(videos.items())
    ]


def left_out_counts(left_out: Iterable[LeftOut]) -> list[Row]:
    """What was left out per source, kind (file, clip, shots, not selected) and reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in left_out:
        counts[row["source"], left_out_kind(row), phrase(row["reason"])] += row.get("count", 1)
    return [
        {"source": source, "left out": kind, "reason": reason, "count": count}
        for (source, kind, reason), count in sorted(
            counts.items(), key=lambda item: (item[0][:2], -item[1], item[0])
        )
    ]


def totals(clips: Sequence[ClipHeader]) -> str:
    """One sentence on all clips."""
    videos = len({clip.attributes.get("file") for clip in clips})
    padded = sum("audio_padded_seconds" in clip.attributes for clip in clips)
    note = f"; {padded} outlast their sound, and silence was added at the end" if padded else ""
    return f"{len(clips)} clips of {videos} videos{note}."


def counts_text(clips: Sequence[ClipHeader], left_out: Sequence[LeftOut]) -> str:
    """Both tables as Markdown, to be read in a terminal and pasted anywhere."""
    parts = [totals(clips), markdown_table(clip_counts(clips))]
    if left_out:
        parts += ["Left out:", markdown_table(left_out_counts(left_out))]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def phrase(reason: str) -> str:
    """The part of a reason that is the same for all it applies to."""
    return reason.partition(":")[0]


def left_out_kind(row: LeftOut) -> str:
    """What was left out: a ``file``, a ``clip``, ``shots``, or files ``not selected``."""
    return row.get("kind") or ("clip" if "clip_id" in row else "file")


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.report",
        description="Counts and thumbnails of a cache of encoded clips.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("cache", metavar="CACHE", help="folder the encode job wrote")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--pictures-per-group",
        type=int,
        default=PICTURES_PER_GROUP,
        help="of each source, genre, camera and split, and of each reason for leaving out",
    )
    parser.add_argument("--all", action="store_true", help="show every clip")
    options = parser.parse_args(args)
    number = None if options.all else options.pictures_per_group
    with in_one_sentence("report"):
        print(write_report(options.cache, options.out, pictures_per_group=number), end="")
    print(f"\nwith thumbnails: {Path(options.out, 'index.html')}")


if __name__ == "__main__":
    main()
