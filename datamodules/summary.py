"""Counting the clips of a dataset and of a cache, and what was left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datamodules.cutting import ClipDataset
from musicinfuser.label_files import read_json_lines
from musicinfuser.media.latents import ClipHeader
from musicinfuser.tables import Row, markdown_table

LeftOut = dict[str, Any]
"""What an encode job noted of one file or clip: ``source``, ``file``, ``reason`` and, of a clip,
``clip_id``; or how many were left out by choice: ``source``, ``kind``, ``reason`` and ``count``."""


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

    Args:
        cache_dir: The cache.
        clips: All its clips.
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


def clip_counts(clips: Iterable[ClipHeader]) -> list[Row]:
    """Clips and videos of a cache per source, split, genre, camera and size, sorted."""
    videos: dict[tuple[str, ...], list[str]] = {}
    for clip in clips:
        genre, camera = (clip.attributes.get(key, "") for key in ("genre", "camera"))
        group = (clip.source, clip.split, genre, camera, clip.bucket)
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
