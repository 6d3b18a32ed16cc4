"""Counting the clips of a dataset."""

from collections import Counter
from collections.abc import Iterable

from datamodules.clips import SkippedClip
from datamodules.cutting import ClipDataset


def summarise(
    dataset: ClipDataset, *, also_skipped: Iterable[SkippedClip] = ()
) -> list[dict[str, str | int]]:
    """Count what a dataset holds and what it leaves out.

    Args:
        dataset: The dataset.
        also_skipped: Clips that turned out unreadable when they were decoded.

    Returns:
        Rows with the keys ``kind`` (``"clips"``, ``"skipped"`` or ``"not selected"``), ``source``,
        ``genre``, ``camera``, ``split``, ``reason`` and ``count``; a field that does not apply is
        empty. Clips are counted per genre, camera and split in sorted order, the rest per reason
        (its fixed phrase), most frequent first. Skipped rows count files, or clips for
        ``also_skipped``; a clip in ``also_skipped`` is still counted under ``"clips"``.
    """

    def row(kind: str, count: int, **fields: str) -> dict[str, str | int]:
        empty = dict.fromkeys(("genre", "camera", "split", "reason"), "")
        return {"kind": kind, "source": dataset.source, **empty, **fields, "count": count}

    groups = Counter(
        (spec.attributes.get("genre", ""), spec.attributes.get("camera", ""), spec.split)
        for spec in dataset.clips
    )
    reasons = Counter(
        skip.reason.partition(":")[0] for skip in (*dataset.skipped, *also_skipped)
    ).most_common()
    return [
        *(
            row("clips", count, genre=genre, camera=camera, split=split)
            for (genre, camera, split), count in sorted(groups.items())
        ),
        *(row("skipped", count, reason=reason) for reason, count in reasons),
        *(
            row("not selected", count, reason=reason)
            for reason, count in Counter(dataset.num_not_selected).most_common()
        ),
    ]
