"""Music response: how much the dance changes when only the music does.

Clips of one prompt and seed start from the same noise; what differs in their motion is what the
model makes of the music. A model that does not listen gives the same clip, a distance of 0.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import start_of
from dance_eval.metrics.motion import (
    DEFAULT_SMOOTHING_SECONDS,
    MotionCurve,
    gaussian_smoothed,
    rests,
)
from dance_eval.metrics.set_metric import Descriptions, Labels, SetMetric, Summary, count, label
from musicinfuser.generation_requests import NO_AUDIO

CONTROL_MARK = re.compile(r", hears (?:another track|nothing)$")
"""What `predict` adds to the name of a system whose clips hear something else."""


def curve_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """How far two motion curves are apart, whatever their levels.

    Both lose their mean; the length of their difference is divided by the root of the sum of their
    squared lengths.

    Args:
        first: Shape (N,).
        second: Shape (N,).

    Returns:
        0 for equal curves, 1 for unrelated ones, up to sqrt(2) for opposite ones; 0 if both are
        constant.
    """
    a, b = (curve.double() - curve.double().mean() for curve in (first, second))
    size = (a.square().sum() + b.square().sum()).sqrt()
    return float((a - b).norm() / size) if float(size) > 1e-12 else 0.0


def pairs_of_music(labels: Labels) -> list[tuple[int, int]]:
    """Pairs of clips of one cell to different music.

    Args:
        labels: As `MusicResponse.labels_of` gives them, of the clips of one cell.

    Returns:
        Their places in the list; of one folder only if some music comes more than once.
    """
    musics = [music for _, music, _, _ in labels]
    is_unique = len(set(musics)) == len(musics)
    return [
        (i, j)
        for i, j in combinations(range(len(labels)), 2)
        if musics[i] != musics[j] and (is_unique or labels[i][3] == labels[j][3])
    ]


class MusicResponse(SetMetric):
    """Distance between the motion of clips of one prompt and seed to different music.

    Clips of systems called ``<name>, hears another track`` and ``<name>, hears nothing`` belong to
    ``<name>``; their music is what the model heard. Where a cell holds several clips to the same
    music, such as those of several trainings, only clips of one folder are compared.

    Values, means over cells of one prompt and seed:
        distance: `curve_distance` between clips to different tracks, mean over the pairs.
        distance_to_silence: The same between clips to a track and to nothing.
        num_alone: Clips that no other clip of their cell can be compared with.
        num_unlike_pairs: Pairs left out because they differ in length or frame rate.

    Args:
        smoothing_seconds: Gaussian over the motion curve.
        motion: The motion curve; None takes the difference of frames.
        name: Name in tables.

    Raises:
        ValueError: If the smoothing is negative.
    """

    value_names = ("distance", "distance_to_silence", "num_alone", "num_unlike_pairs")

    def __init__(
        self,
        *,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        motion: MotionCurve | None = None,
        name: str = "music_response",
    ) -> None:
        super().__init__(name=name)
        rests(torch.zeros(0), fps=1.0, smoothing_seconds=smoothing_seconds)
        self.smoothing_seconds = smoothing_seconds
        self.motion = motion

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Frame rate and smoothed motion curve, shape (1 + T - 1,)."""
        sigma = self.smoothing_seconds * clip.fps
        curve = gaussian_smoothed(clip.motion_curve(self.motion), sigma_samples=sigma)
        return torch.cat([torch.tensor([clip.fps], dtype=torch.float64), curve])

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Cell, music, whether it is silence, and folder."""
        if CONTROL_MARK.sub("", entry.system) != system:
            return None
        music = self.pieces.heard(entry) or self.pieces.of(entry)
        start = 0.0 if music == NO_AUDIO else start_of(entry)
        # Without a seed nothing says that two clips started from the same noise.
        own = (entry.seed,) if entry.seed is not None else (str(entry.folder), entry.file)
        is_silent, folder = int(music == NO_AUDIO), label(str(entry.folder))
        return label(entry.prompt, *own), label(music, start), is_silent, folder

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Means over cells, and counts."""
        cells: dict[int, list[int]] = {}
        for number, (cell, *_) in enumerate(labels):
            cells.setdefault(cell, []).append(number)
        by_track: list[float] = []
        to_silence: list[float] = []
        compared: set[int] = set()
        num_unlike = 0
        for members in cells.values():
            # By whether one of the two hears nothing.
            found: dict[bool, list[float]] = {False: [], True: []}
            for pair in pairs_of_music([labels[number] for number in members]):
                numbers = [members[place] for place in pair]
                first, second = (descriptions[number] for number in numbers)
                if len(first) != len(second) or first[0] != second[0]:
                    num_unlike += 1
                    continue
                compared.update(numbers)
                is_silent = any(labels[number][2] for number in numbers)
                found[is_silent].append(curve_distance(first[1:], second[1:]))
            by_track += [fmean(found[False])] if found[False] else []
            to_silence += [fmean(found[True])] if found[True] else []
        return {
            value: bootstrap_mean(
                numbers, seed=seed, name=f"{self.name}/{value}", confidence=confidence
            )
            for value, numbers in (("distance", by_track), ("distance_to_silence", to_silence))
        } | {
            "num_alone": count(len(labels) - len(compared), out_of=len(labels)),
            "num_unlike_pairs": count(num_unlike, out_of=len(labels)),
        }

    def fingerprints(self) -> dict[str, str]:
        """Those of the motion curve, where it reads weights."""
        return {} if self.motion is None else self.motion.fingerprints()

    def files_of(self, path: Path) -> Sequence[Path]:
        """Those of the motion curve, where it reads files beside a clip."""
        return () if self.motion is None else self.motion.files_of(path)
