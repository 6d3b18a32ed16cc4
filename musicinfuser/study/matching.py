"""Which clips of two systems answer the same request."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from musicinfuser.metrics.clip_folder import ClipEntry


@dataclass(frozen=True)
class MatchedPair:
    """Two clips for the same track, start, prompt and seed.

    Attributes:
        first: The clip of the system that was named first.
        second: The other system's.
    """

    first: ClipEntry
    second: ClipEntry


def _music(entry: ClipEntry) -> tuple[str, float]:
    """The music of a clip, as everywhere in evaluation: stem of the track, and the start."""
    return Path(entry.track or entry.file).stem, entry.track_offset_seconds


def _is_same(first: ClipEntry, second: ClipEntry) -> bool:
    return (first.prompt, first.seed) == (second.prompt, second.seed)


def _is_compatible(first: ClipEntry, second: ClipEntry) -> bool:
    """Whether nothing speaks against it; films of people have no prompt and no seed."""
    return all(
        one is None or other is None or one == other
        for one, other in ((first.prompt, second.prompt), (first.seed, second.seed))
    )


def match_clips(entries: Sequence[ClipEntry]) -> tuple[list[MatchedPair], list[str]]:
    """Pair the clips of every two systems by what they were asked for.

    Clips with the same music are paired if prompt and seed agree too; where a list names no prompt
    or seed, as for films of people, the first clip left with that music is taken. No clip is in two
    pairs of the same two systems.

    Args:
        entries: Clips of two or more systems; systems in the order in which they first appear.

    Returns:
        The pairs, and one sentence for every clip that has no counterpart in some other system.
    """
    systems: dict[str, dict[tuple[str, float], list[ClipEntry]]] = {}
    for entry in entries:
        systems.setdefault(entry.system, defaultdict(list))[_music(entry)].append(entry)
    pairs: list[MatchedPair] = []
    missing: list[str] = []
    for one, other in combinations(systems, 2):
        for music in sorted({*systems[one], *systems[other]}):
            mine, theirs = systems[one].get(music, []), list(systems[other].get(music, []))
            alone = list(mine)
            for agrees in (_is_same, _is_compatible):
                for entry in list(alone):
                    found = next((clip for clip in theirs if agrees(entry, clip)), None)
                    if found is not None:
                        pairs.append(MatchedPair(entry, found))
                        alone.remove(entry)
                        theirs.remove(found)
            missing += [_sentence(entry, other) for entry in alone]
            missing += [_sentence(entry, one) for entry in theirs]
    return pairs, missing


def _sentence(entry: ClipEntry, system: str) -> str:
    asked = [f"track {_music(entry)[0]}", f"start {entry.track_offset_seconds:g} s"]
    if entry.prompt is not None:
        asked.append(f"prompt {entry.prompt!r}")
    if entry.seed is not None:
        asked.append(f"seed {entry.seed}")
    return f"{entry.path}: {system} has no clip left for it ({', '.join(asked)})."
