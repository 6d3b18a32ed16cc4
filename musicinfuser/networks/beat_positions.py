"""Where in the beat, the pair of beats and the bar music is, followed through time.

A network that looks at a few seconds of music places each token on three circles (cosine and sine
of its position in the beat, in two beats and in the bar), now and then between the beats or at
another tempo than before. Music keeps its tempo: the most probable path of a hidden Markov model,
whose states are a tempo and a place in the beat (Whiteley, Cemgil and Godsill 2006; Krebs, Böck and
Widmer 2015), goes through such places.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicinfuser.media.audio import resample

# Constants were chosen on songs of small_world/generator/training_songs.csv, which the encoder had
# not learned from; that several speeds help was seen on small_world/experiments/recorded_songs.csv
# before (docs/small_world.md).
CYCLES_BEATS = (1, 2, 4)
"""Lengths of the three cycles."""
SPEEDS = (1.0, 0.84, 0.92, 1.09, 1.19)
"""A network reads the music at each of them: its errors at one speed are seldom those at another.
On 310 excerpts of such songs beats of the mean have an alignment of 0.743 with the known ones,
those of the music's own speed alone 0.683 (small_world/experiments/heard_beats.py)."""
SLOWEST_BPM, FASTEST_BPM = 60.0, 150.0
_CERTAINTY = 1.0
"""Logarithm of how much more probable a place is that a token names than one a quarter off."""
_STEADINESS = 60.0
"""What a beat costs that is longer or shorter than the one before, per unit of log(length)."""
_NEAR_BEATS = 8
"""So many beats before and after one say together where in the bar it is."""
_LEAST_AGREEMENT = 0.1
"""Where tokens agree less with the path than this (1 is most), there is no beat to follow."""
_AGREEMENT_SECONDS = 4.0


def follow_beats(points: Tensor, hop_seconds: float) -> Tensor:
    """Positions that go on steadily, made of those that a network gives.

    Args:
        points: ``(B, S, 3, 2)``: cosine and sine of the position in each cycle of `CYCLES_BEATS`;
            their lengths say how sure it is.
        hop_seconds: From one token to the next.

    Returns:
        ``(B, S, 6)`` fp32 on the same device: cosine and sine of the position in each cycle; zero
        where there is no beat to follow, as in silence.
    """
    found = [_follow(each, hop_seconds) for each in points.double().cpu().numpy()]
    return torch.from_numpy(np.stack(found)).float().to(points.device)


def _follow(points: NDArray[np.float64], hop_seconds: float) -> NDArray[np.float64]:
    if len(points) == 0:
        return np.zeros((0, 2 * len(CYCLES_BEATS)))
    place, number = beat_places(points[:, 0], hop_seconds)
    beats = number + place
    beats += _beats_into_bar(points, beats)[number]
    circles = np.stack([_on_circle(beats / cycle) for cycle in CYCLES_BEATS], axis=1)
    agreement = (circles[:, 0] * points[:, 0]).sum(-1)
    span = max(round(_AGREEMENT_SECONDS / hop_seconds), 1)
    near = _moving_sum(agreement, span) / _moving_sum(np.ones(len(points)), span)
    circles[near < _LEAST_AGREEMENT] = 0
    return circles.reshape(len(points), -1)


def at_speed(waveforms: Tensor, speed: float, *, rate_hz: int) -> Tensor:
    """Waveforms ``(B, num_samples)`` played so many times as fast, which changes the pitch too."""
    if speed == 1:
        return waveforms
    from_hz = round(rate_hz * speed)
    return torch.stack([resample(each, from_hz=from_hz, to_hz=rate_hz) for each in waveforms.cpu()])


def at_own_speed(points: Tensor, speed: float, num_tokens: int, *, first: float) -> Tensor:
    """What was found of music at a speed, at the tokens of the music itself.

    Args:
        points: ``(B, S, ...)``, of the music played so many times as fast.
        speed: How fast.
        num_tokens: Of the music itself; those beyond the last one given are like it.
        first: Where the middle of the first token lies, in tokens.

    Returns:
        ``(B, num_tokens, ...)``, between the two nearest tokens.
    """
    if speed == 1:
        return points
    at = (torch.arange(num_tokens, dtype=torch.float64) + first) / speed - first
    at = at.clamp(0, points.shape[1] - 1)
    before = at.long()
    after = (before + 1).clamp(max=points.shape[1] - 1)
    share = (at - before).to(points).reshape(-1, *[1] * (points.ndim - 2))
    return torch.lerp(points[:, before], points[:, after], share)


def beat_places(
    points: NDArray[np.float64], hop_seconds: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The most probable path through beats of 60 to 150 per minute (Viterbi).

    Args:
        points: ``(S, 2)``, S at least 1: cosine and sine of the position in the beat.
        hop_seconds: From one token to the next.

    Returns:
        Place in the beat in [0, 1), and how many beats have begun since the first, ``(S,)`` each.
    """
    # A beat takes a whole number of tokens; tempi between are beats of two lengths in turn.
    lengths = np.arange(
        round(60 / FASTEST_BPM / hop_seconds), round(60 / SLOWEST_BPM / hop_seconds) + 1
    )
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    last = first + lengths - 1
    places = np.concatenate([np.arange(length) / length for length in lengths])
    change = -_STEADINESS * np.abs(np.log(lengths[:, None] / lengths))
    change -= np.log(np.exp(change).sum(axis=1, keepdims=True))
    fits = _CERTAINTY * points @ _on_circle(places).T
    score, before = fits[0], np.zeros((len(points), len(lengths)), np.intp)
    for token in range(1, len(points)):
        begins = score[last, None] + change
        before[token] = begins.argmax(axis=0)
        score = np.concatenate([[0.0], score[:-1]])
        score[first] = begins.max(axis=0)
        score += fits[token]
    of_length = np.repeat(np.arange(len(lengths)), lengths)
    state = int(score.argmax())
    path, begun = np.empty(len(points), np.intp), np.zeros(len(points), np.intp)
    for token in range(len(points) - 1, -1, -1):
        path[token] = state
        length = of_length[state]
        begun[token] = token > 0 and state == first[length]
        state = last[before[token, length]] if state == first[length] else state - 1
    return places[path], begun.cumsum()


def _beats_into_bar(points: NDArray[np.float64], beats: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many beats to add to each beat's number so that bars begin at multiples of four."""
    number = np.floor(beats).astype(np.intp)
    fits = np.zeros((number[-1] + 1, CYCLES_BEATS[-1]))
    for shift in range(CYCLES_BEATS[-1]):
        for cycle, of_cycle in zip(CYCLES_BEATS[1:], points[:, 1:].swapaxes(0, 1), strict=True):
            agreement = (_on_circle((beats + shift) / cycle) * of_cycle).sum(-1)
            np.add.at(fits[:, shift], number, agreement)
    near = np.stack([_moving_sum(each, 2 * _NEAR_BEATS + 1) for each in fits.T], axis=1)
    return near.argmax(axis=1)


def _on_circle(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine and sine, ``(..., 2)``."""
    return np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=-1)


def _moving_sum(values: NDArray[np.float64], span: int) -> NDArray[np.float64]:
    """Of ``span`` values around each; at the ends of those that there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    half = span // 2
    return total[np.minimum(at + half + 1, len(values))] - total[np.maximum(at - half, 0)]
