"""Which clips stand beside each other: those of one cell, made by several systems."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musicinfuser.metrics.clip_folder import ClipEntry


@dataclass(frozen=True)
class CellGroup:
    """The clips of one cell.

    Attributes:
        track: Name of the music without its folder and suffix, or of the file where none is known.
        offset_seconds: Where in the track the clips start.
        prompt: The text that they were asked to show, where it is known.
        clips: The clips by system.
    """

    track: str
    offset_seconds: float
    prompt: str | None
    clips: dict[str, ClipEntry] = field(default_factory=dict)


def cell_groups(entries: Sequence[ClipEntry]) -> list[CellGroup]:
    """Clips by track, start and prompt, one per system.

    Of several clips of one system for one cell, such as those of several seeds, the first stands
    beside the first of the others, the second beside the second. A clip whose prompt is not known,
    such as a recording, stands in every cell of its music.

    Args:
        entries: The clips; systems keep their order.

    Returns:
        The cells in the order of tracks, starts and prompts.
    """
    groups: dict[tuple[str, float, str, int], CellGroup] = {}
    promptless: list[ClipEntry] = []
    counts: Counter[tuple[str, str, float, str]] = Counter()
    for entry in entries:
        if entry.prompt is None:
            promptless.append(entry)
            continue
        track, start = _track(entry), entry.track_offset_seconds
        counts[entry.system, track, start, entry.prompt] += 1
        key = (track, start, entry.prompt, counts[entry.system, track, start, entry.prompt])
        group = groups.setdefault(key, CellGroup(track, start, entry.prompt))
        group.clips[entry.system] = entry
    seen: Counter[tuple[str, str, float]] = Counter()
    for entry in promptless:
        track, start = _track(entry), entry.track_offset_seconds
        seen[entry.system, track, start] += 1
        number = seen[entry.system, track, start]
        own = [
            group
            for (own_track, own_start, prompt, own_number), group in groups.items()
            if (own_track, own_start, own_number) == (track, start, number) and prompt
        ]
        if not own:
            own = [groups.setdefault((track, start, "", number), CellGroup(track, start, None))]
        for group in own:
            group.clips.setdefault(entry.system, entry)
    order = {system: n for n, system in enumerate(dict.fromkeys(e.system for e in entries))}
    for group in groups.values():
        clips = sorted(group.clips.items(), key=lambda item: order[item[0]])
        group.clips.clear()
        group.clips.update(clips)
    return [groups[key] for key in sorted(groups)]


def _track(entry: ClipEntry) -> str:
    return Path(entry.track or entry.file).stem
