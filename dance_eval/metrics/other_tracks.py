"""Which clip lends another its music, so that a judge hears a track that nobody danced to."""

from collections.abc import Sequence
from pathlib import Path

import torch

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.matching import Pieces, track_of
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.media.video import probe_video


def lenders(entries: Sequence[ClipEntry], *, seed: int) -> dict[Path, Path]:
    """For every clip the file of one with another track.

    Pieces of music stand in a circle in an order drawn from the seed, and each lends to the one
    before it, so none keeps its own (a derangement). All clips of one piece hear the same other
    track, whatever system made them. A track is lent by the first of its clips that has sound.

    Args:
        entries: All clips of a run; those with a problem are passed over.
        seed: The evaluation's.

    Returns:
        File of the lender by file of the clip; empty with fewer than two tracks.
    """
    usable = [entry for entry in entries if entry.problem is None]
    pieces = Pieces(usable)
    by_track: dict[tuple[str, str], list[ClipEntry]] = {}
    for entry in usable:
        by_track.setdefault((track_of(entry), pieces.of(entry)), []).append(entry)
    sources = {}
    for track in sorted(by_track):
        files = (entry.path for entry in by_track[track])
        if (source := next((file for file in files if _has_sound(file)), None)) is not None:
            sources[track] = source
    if len(sources) < 2:
        return {}
    names = sorted(sources)
    order = torch.randperm(len(names), generator=generator(seed, "tracks", "other track"))
    circle = [names[index] for index in order.tolist()]
    following = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return {
        entry.path: sources[following[track]]
        for track, own in by_track.items()
        if track in following
        for entry in own
    }


def _has_sound(path: Path) -> bool:
    try:
        return probe_video(path).has_audio
    except UserError:
        return False
