"""Music response: how much the dance changes when only the music does.

Clips of one prompt and seed start from the same noise; what differs in their motion is what the
music does to it. A model that ignores its music gives the same clip, a distance of 0.
"""

import re
from itertools import combinations
from statistics import fmean

import torch

from dance_eval.metrics.clip import (
    Descriptions,
    Labels,
    MotionCurve,
    ScoredClip,
    SetMetric,
    Summary,
    count,
    label,
)
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import start_of
from dance_eval.metrics.motion import (
    DEFAULT_SMOOTHING_SECONDS,
    gaussian_smoothed,
    kinematic_beats,
)
from musicinfuser.generation_requests import NO_AUDIO

CONTROL_MARK = re.compile(r", (?:mismatched audio|no audio|hears (?:another track|nothing))$")
"""What `predict` adds to the name of a system whose clips are conditioned on something else; the
last two are of versions before 0.2."""


def curve_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """How far two motion curves of shape (N,) are apart, whatever their levels.

    Both lose their mean; the length of their difference is divided by the root of the sum of their
    squared lengths: 0 for equal curves, 1 for unrelated ones, up to sqrt(2) for opposite ones; 0 if
    both are constant.
    """
    a, b = (curve.double() - curve.double().mean() for curve in (first, second))
    size = (a.square().sum() + b.square().sum()).sqrt()
    return float((a - b).norm() / size) if float(size) > 1e-12 else 0.0


class CurveSetMetric(SetMetric):
    """A metric over sets of clips that keeps of each clip how much it moves from frame to frame.

    Args:
        smoothing_seconds: Gaussian over the motion curve, 0 or more.
        motion: The motion curve; None takes the difference of frames.
        name: Name in tables and in metrics.json.
    """

    def __init__(
        self,
        *,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        motion: MotionCurve | None = None,
        name: str,
    ) -> None:
        super().__init__(name=name, part=motion)
        # A setting that is out of range should be refused now, not after the first clip.
        kinematic_beats(torch.zeros(0), fps=1.0, smoothing_seconds=smoothing_seconds)
        self.smoothing_seconds = smoothing_seconds
        self.motion = motion

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Frame rate and smoothed motion curve, shape (1 + T - 1,)."""
        sigma = self.smoothing_seconds * clip.fps
        curve = gaussian_smoothed(clip.motion_curve(self.motion), sigma_samples=sigma)
        return torch.cat([torch.tensor([clip.fps], dtype=torch.float64), curve])


class MusicResponse(CurveSetMetric):
    """Distance between the motion of clips of one prompt and seed to different music.

    Clips of systems called ``<name>, mismatched audio`` and ``<name>, no audio`` belong to
    ``<name>``; their music is what the model was conditioned on. Where several clips of one prompt
    and seed have the same music, such as those of several trainings, only clips of one folder are
    compared.

    Values, means over prompts and seeds:
        distance: `curve_distance` between clips to different tracks, mean over the pairs.
        distance_to_silence: The same between clips to a track and to nothing.
        num_alone: Clips that no other clip of their prompt and seed can be compared with.
        num_unlike_pairs: Pairs left out because they differ in length or frame rate.

    Args:
        smoothing_seconds: Gaussian over the motion curve, 0 or more.
        motion: The motion curve; None takes the difference of frames.
    """

    value_names = ("distance", "distance_to_silence", "num_alone", "num_unlike_pairs")

    def __init__(
        self,
        *,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        motion: MotionCurve | None = None,
        name: str = "music_response",
    ) -> None:
        super().__init__(smoothing_seconds=smoothing_seconds, motion=motion, name=name)

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Prompt and seed, music, whether it is silence, and folder."""
        if CONTROL_MARK.sub("", entry.system) != system:
            return None
        music = self.pieces.conditioned_on(entry) or self.pieces.of(entry)
        start = 0.0 if music == NO_AUDIO else start_of(entry)
        # Without a seed nothing says that two clips started from the same noise.
        own = (entry.seed,) if entry.seed is not None else (str(entry.folder), entry.file)
        is_silent, folder = int(music == NO_AUDIO), label(str(entry.folder))
        return label(entry.prompt, *own), label(music, start), is_silent, folder

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Means over prompts and seeds, and counts."""
        groups: dict[int, list[int]] = {}
        for number, (group, *_) in enumerate(labels):
            groups.setdefault(group, []).append(number)
        means: dict[str, list[float]] = {"distance": [], "distance_to_silence": []}
        compared: set[int] = set()
        num_unlike = 0
        for members in groups.values():
            found: dict[str, list[float]] = {"distance": [], "distance_to_silence": []}
            is_unique = len({labels[number][1] for number in members}) == len(members)
            for pair in combinations(members, 2):
                musics, silent, folders = zip(*(labels[number][1:] for number in pair), strict=True)
                if musics[0] == musics[1] or not (is_unique or folders[0] == folders[1]):
                    continue
                first, second = (descriptions[number] for number in pair)
                if len(first) != len(second) or first[0] != second[0]:
                    num_unlike += 1
                    continue
                compared.update(pair)
                value = "distance_to_silence" if any(silent) else "distance"
                found[value].append(curve_distance(first[1:], second[1:]))
            for value, distances in found.items():
                means[value] += [fmean(distances)] if distances else []
        return {
            value: bootstrap_mean(
                numbers, seed=seed, name=f"{self.name}/{value}", confidence=confidence
            )
            for value, numbers in means.items()
        } | {
            "num_alone": count(len(labels) - len(compared), out_of=len(labels)),
            "num_unlike_pairs": count(num_unlike, out_of=len(labels)),
        }
