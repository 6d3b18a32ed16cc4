"""Which clips of two systems answer the same request, and a sentence on each without a partner."""

from collections.abc import Sequence

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.matching import MatchedPair, Pieces, matched

__all__ = ["MatchedPair", "match_clips"]


def match_clips(entries: Sequence[ClipEntry]) -> tuple[list[MatchedPair], list[str]]:
    """Pair the clips of every two systems as `matched` does.

    Returns:
        The pairs, and one sentence for every clip that has no counterpart in some other system.
    """
    pieces = Pieces(entries)
    pairs, alone = matched(entries, pieces)
    return pairs, [_sentence(entry, system, pieces.title(entry)) for entry, system in alone]


def _sentence(entry: ClipEntry, system: str, track: str) -> str:
    asked = [f"track {track}", f"start {entry.track_offset_seconds:g} s"]
    if entry.prompt is not None:
        asked.append(f"prompt {entry.prompt!r}")
    if entry.seed is not None:
        asked.append(f"seed {entry.seed}")
    return f"{entry.path}: {system} has no clip left for it ({', '.join(asked)})."
