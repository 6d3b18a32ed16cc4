"""Where pieces of sound lie, from the count of their samples and from their time stamps.

Stamps are rounded (Matroska: to a millisecond), and single ones are wrong: in Ogg, at the ends of
pages, by up to the length of a block. The count is exact, but knows no holes.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

# Containers round time stamps to a millisecond; the shortest common packet lasts 20 ms.
_JITTER_SECONDS = 0.01
# How many stamps, over how long, must deviate alike before they count more than the samples do.
_LASTING_STAMPS = 3
_LASTING_SECONDS = 0.1


@dataclass(frozen=True)
class Piece:
    """The samples of one frame, float32 (S,), and what the container says about them."""

    samples: Tensor
    rate_hz: int
    seconds: Fraction | None
    """When the first sample is played."""


@dataclass(frozen=True)
class Grid:
    """Where pieces can begin: at one position, and at whole steps from it, in samples."""

    anchor: int
    step: int


def grid_of(head: Sequence[tuple[int, Piece]]) -> Grid | None:
    """The grid that the first few pieces of a track lie on, where there are enough of them.

    The first one may be shorter than the others: codecs drop what they added at the start.
    """
    if len(head) <= _LASTING_STAMPS:
        return None
    return Grid(head[1][0], math.gcd(*(len(piece.samples) for _, piece in head[1:])))


def placed(
    pieces: Iterable[Piece], tick_seconds: Fraction, grid: Grid | None = None
) -> Iterator[tuple[int, Piece]]:
    """Pieces that follow each other, with their positions; these may leave holes or overlap.

    The first stamps decide where the track begins, and from then on samples are counted. Stamps
    that deviate from the count are followed only where the deviation lasts.

    Args:
        pieces: All of one sampling rate.
        tick_seconds: The step between two time stamps.
        grid: Known from another part of the track, it makes good what coarse stamps are rounded.
    """
    offset: int | None = None
    count, waiting = 0, list[tuple[int, Piece]]()
    for piece in pieces:
        rate_hz, at = piece.rate_hz, count
        waiting.append((at, piece))
        count += len(piece.samples)
        if piece.seconds is None:
            if offset is None or len(waiting) > 1:
                continue
        elif offset is None or abs(piece.seconds * rate_hz - at - offset) > (
            _JITTER_SECONDS * rate_hz
        ):
            is_long = count - waiting[0][0] >= _LASTING_SECONDS * rate_hz
            if _num_stamps(waiting) < _LASTING_STAMPS or not is_long:
                continue
            offset = _offset(waiting, tick_seconds, grid)
        yield from ((start + offset, held) for start, held in waiting)
        waiting = []
    # A single stamp is no more to be trusted at the end than elsewhere.
    if offset is None or _num_stamps(waiting) > 1:
        offset = _offset(waiting, tick_seconds, grid)
    yield from ((start + offset, held) for start, held in waiting)


def _num_stamps(waiting: Sequence[tuple[int, Piece]]) -> int:
    return sum(piece.seconds is not None for _, piece in waiting)


def _offset(waiting: Sequence[tuple[int, Piece]], tick_seconds: Fraction, grid: Grid | None) -> int:
    """What most stamps say is to be added to the count of samples."""
    deviations = [
        piece.seconds * piece.rate_hz - at for at, piece in waiting if piece.seconds is not None
    ]
    if not deviations:
        return 0
    tick = tick_seconds * waiting[0][1].rate_hz
    usual = statistics.median_low(deviations)
    alike = [deviation for deviation in deviations if abs(deviation - usual) <= tick]
    # Each stamp was rounded by at most half a tick, so the truth lies in their middle.
    offset = round((min(alike) + max(alike)) / 2)
    if grid is None or (1 / tick).denominator == 1:
        return offset
    step = math.gcd(grid.step, *(len(piece.samples) for _, piece in waiting))
    first = waiting[0][0]
    from_anchor = first + offset - grid.anchor
    correction = round(Fraction(from_anchor, step)) * step - from_anchor
    is_rounding = step > tick and abs(correction) <= tick / 2 + 1
    return offset + correction if is_rounding else offset
