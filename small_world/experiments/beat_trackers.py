"""How well beats are tracked: pieces with known beats, played by two soundfonts.

    python -m small_world.experiments.beat_trackers librosa aistpp madmom=ENV/bin/python

For each tracker and each kind of piece: F (beats within 70 ms, as is usual), lag (median of tracked
minus true time over the beats that match), and at how many times the true tempo the piece is
followed where it is not at the true one. The last rows are over pieces, and of what is followed at
its tempo with the tempo told. A program's name is followed by the Python of its environment, Beat
This!'s by its weights as well (``beat_this=PYTHON,WEIGHTS``); fonts are Debian's fluid-soundfont-gm
and timgm6mb-soundfont.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dance_eval.metrics.beat_trackers import BeatTracker, TrackerName, beat_tracker
from dance_eval.metrics.intervals import bootstrap_mean
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.media.audio import resample
from musicinfuser.tables import Row, markdown_table
from small_world.generator.band import SOUNDFONT, SampledInstruments, compose_score

Array = NDArray[np.float64]
PIECES: dict[str, tuple[tuple[str, float], ...]] = {
    "rock": (("rock", 92.0), ("rock", 128.0), ("rock", 170.0), ("punk", 184.0)),
    "house": (("house", 118.0), ("house", 124.0), ("disco", 112.0), ("trance", 138.0)),
    "drum and bass": tuple(("drum_and_bass", bpm) for bpm in (168.0, 172.0, 176.0, 180.0)),
    "hip hop": (("hip_hop", 76.0), ("hip_hop", 94.0), ("reggaeton", 96.0), ("funk", 104.0)),
    "shuffle": tuple(("shuffle_blues", bpm) for bpm in (80.0, 100.0, 118.0, 140.0)),
    "swing": tuple(("swing_jazz", bpm) for bpm in (110.0, 140.0, 170.0, 190.0)),
    "no drums": (
        *(("piano", 88.0), ("piano", 126.0)),
        *(("acoustic_guitar", 100.0), ("strings_ostinato", 132.0)),
    ),
}
"""Style and tempo of the pieces of each kind; odd ones are played by the second font."""
SOUNDFONTS = (SOUNDFONT, SOUNDFONT.with_name("TimGM6mb.sf2"))
RATE_HZ = 44_100
SECONDS = 24.0
MATCH_SECONDS = 0.07
RATIOS = {"1/3": 1 / 3, "1/2": 0.5, "2/3": 2 / 3, "3/4": 0.75, "1": 1.0}
RATIOS |= {"4/3": 4 / 3, "3/2": 1.5, "2": 2.0, "3": 3.0}
SAME_RATIO = 0.06
FOLLOWED_F = 0.8


@dataclass(frozen=True, eq=False)
class TruePiece:
    """Sound with its beats."""

    kind: str
    bpm: float
    beats_seconds: Array
    sound: NDArray[np.float32]
    """Mono at `RATE_HZ`."""


@dataclass(frozen=True)
class TrackedPiece:
    """How a piece was tracked."""

    kind: str
    f_measure: float
    lag_ms: float | None
    """None where nothing matches."""
    ratio: str
    """A key of `RATIOS`, or "other"."""
    told_f: float
    told_lag_ms: float | None
    """The same with the tempo told."""


def matched_gaps(found: Array, true: Array, *, within: float = MATCH_SECONDS) -> Array:
    """Found minus true times of beats that match; each is in one pair at most.

    Both are ascending; taking pairs in order of time gives as many as can be.
    """
    gaps, i, j = [], 0, 0
    while i < len(found) and j < len(true):
        gap = found[i] - true[j]
        if abs(gap) <= within:
            gaps.append(gap)
        i, j = i + (gap <= within), j + (gap >= -within)
    return np.array(gaps)


def f_measure(found: Array, true: Array) -> float:
    """Twice the pairs over all beats, found and true; 0 to 1."""
    return 2 * len(matched_gaps(found, true)) / max(len(found) + len(true), 1)


def lag_of(found: Array, true: Array) -> float | None:
    """Median of `matched_gaps` in ms, above 0 where beats come late."""
    gaps = matched_gaps(found, true)
    return float(np.median(gaps)) * 1000 if len(gaps) else None


def ratio_of(found: Array, bpm: float) -> str:
    """At which of `RATIOS` of its tempo a piece was followed."""
    if len(found) < 2:
        return "other"
    ratio = 60 / float(np.median(np.diff(found))) / bpm
    name = min(RATIOS, key=lambda one: abs(np.log(ratio / RATIOS[one])))
    return name if abs(ratio / RATIOS[name] - 1) < SAME_RATIO else "other"


def true_pieces(soundfonts: Sequence[Path], *, seed: int) -> list[TruePiece]:
    """The pieces of `PIECES`, played; `UserError` without the fonts."""
    players = [SampledInstruments(font, rate_hz=RATE_HZ) for font in soundfonts]
    wanted = [(kind, *piece) for kind, pieces in PIECES.items() for piece in pieces]
    played = []
    for number, (kind, style, bpm) in enumerate(tqdm(wanted, "playing")):
        num_bars = int(SECONDS * bpm / 60 / 4) + 1
        name = f"{style} {bpm:g}"
        score = compose_score(
            name, seed=seed, num_bars=num_bars, style=style, bpm=bpm, is_steady=True
        )
        beats = score.beats_seconds[score.beats_seconds < SECONDS]
        sound = players[number % len(players)].play(score, SECONDS)
        played.append(TruePiece(kind, bpm, beats, sound))
    return played


def track(tracker: BeatTracker, pieces: Sequence[TruePiece], *, name: str) -> list[TrackedPiece]:
    """Track all pieces, without their tempo and with it."""
    found = []
    for piece in tqdm(pieces, name):
        sound = resample(torch.from_numpy(piece.sound), from_hz=RATE_HZ, to_hz=tracker.rate_hz)
        own = tracker(sound, rate_hz=tracker.rate_hz).seconds.numpy()
        told = own
        if tracker.takes_tempo:
            told = tracker(sound, rate_hz=tracker.rate_hz, known_bpm=piece.bpm).seconds.numpy()
        true = piece.beats_seconds
        found.append(
            TrackedPiece(
                piece.kind,
                f_measure(own, true),
                lag_of(own, true),
                ratio_of(own, piece.bpm),
                f_measure(told, true),
                lag_of(told, true),
            )
        )
    return found


def rows_of(name: str, pieces: Sequence[TrackedPiece]) -> list[Row]:
    """A row per kind and one over all pieces."""
    kinds = list(dict.fromkeys(piece.kind for piece in pieces))
    rows: list[Row] = []
    for kind in [*kinds, None]:
        own = [piece for piece in pieces if kind in (piece.kind, None)]
        lags = [p.told_lag_ms for p in own if p.told_f > FOLLOWED_F and p.told_lag_ms is not None]
        wrong = Counter(piece.ratio for piece in own if piece.ratio != "1")
        text = f"{np.mean([piece.f_measure for piece in own]):.2f}"
        told = f"{np.mean([piece.told_f for piece in own]):.2f}"
        if kind is None:
            text, told = (
                bootstrap_mean([getattr(p, field) for p in own], seed=0, name=name).text(2)
                for field in ("f_measure", "told_f")
            )
        rows.append(
            {
                "tracker": name,
                "pieces": f"{kind or 'all'}, n = {len(own)}",
                "F": text,
                "not at its tempo": ", ".join(f"{n} at {r}" for r, n in wrong.items()) or "-",
                "F, tempo told": told,
                "lag, ms": f"{round(np.median(lags))} ({round(min(lags))} to {round(max(lags))})"
                if lags
                else "-",
            }
        )
    return rows


def tracker_of(text: str) -> tuple[str, BeatTracker]:
    """A tracker by ``NAME``, ``NAME=PYTHON`` or ``NAME=PYTHON,WEIGHTS``."""
    name, _, place = text.partition("=")
    python, _, weights = place.partition(",")
    names: tuple[TrackerName, ...] = get_args(TrackerName)
    known = next((one for one in names if one == name), None)
    if known is None:
        raise UserError(f"{name!r} is no tracker; there are {', '.join(names)}.")
    tracker = beat_tracker(
        known,
        python=Path(python) if python else None,
        weights=Path(weights) if weights else None,
    )
    tracker.check()
    return known, tracker


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, track and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.experiments.beat_trackers",
        description="Compare trackers on music with known beats.",
    )
    parser.add_argument("trackers", nargs="+", metavar="NAME[=PYTHON[,WEIGHTS]]")
    parser.add_argument("--soundfonts", type=Path, nargs="+", default=list(SOUNDFONTS))
    parser.add_argument("--seed", type=int, default=1, help="of the pieces")
    options = parser.parse_args(args)
    trackers = [tracker_of(text) for text in options.trackers]
    pieces = true_pieces(options.soundfonts, seed=options.seed)
    rows = [row for name, one in trackers for row in rows_of(name, track(one, pieces, name=name))]
    print(markdown_table(rows))


if __name__ == "__main__":
    with in_one_sentence("beat_trackers"):
        main()
