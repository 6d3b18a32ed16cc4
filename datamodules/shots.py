"""Shots, the stretches between a video's cuts, and where in them clips start."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from musicinfuser.setting_checks import check_choice, check_number

Detector = Literal["adaptive", "content"]


@dataclass(frozen=True)
class ShotSettings:
    """How cuts are found, so that no clip crosses one.

    The paper and the authors' code say nothing of cuts; they cut clips anywhere.

    Attributes:
        detector: A detector of PySceneDetect. ``"adaptive"`` compares the change from frame to
            frame with the changes around it, so that fast movement is not taken for a cut;
            ``"content"`` takes every large change for one, so also a flash.
        threshold: Lower finds more cuts. None is PySceneDetect's own value: 3 times the changes
            around for ``"adaptive"``, 27 of 255 for ``"content"``.
        margin_seconds: How far clips stay from a cut. Frames beside one are often blended with the
            other shot, and of cuts within two frames of each other ``"adaptive"`` may see only the
            larger change.
        min_seconds: Shots that are shorter, margins taken off, give no clip; those shorter than a
            clip never do.
        folder: Where the cuts of each file are kept, so that each is decoded once.
    """

    detector: Detector = "adaptive"
    threshold: float | None = None
    margin_seconds: float = 0.1
    min_seconds: float = 0.0
    folder: str = "cache/shots"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_choice("shots.detector", self.detector, get_args(Detector))
        check_number("shots.threshold", self.threshold, above=0)
        check_number("shots.margin_seconds", self.margin_seconds, at_least=0)
        check_number("shots.min_seconds", self.min_seconds, at_least=0)


@dataclass(frozen=True)
class Shot:
    """A stretch of video without a cut, in seconds from the first frame."""

    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_seconds - self.start_seconds

    def latest_start(self, clip_seconds: float) -> float:
        """When a clip must start to end with the shot."""
        return self.end_seconds - clip_seconds

    def reason_to_skip(self, clip_seconds: float, min_seconds: float = 0.0) -> str | None:
        """Why no clip is cut from it, or None."""
        if self.latest_start(clip_seconds) < self.start_seconds:
            return "shot shorter than a clip"
        return "shot shorter than min_seconds" if self.seconds < min_seconds else None

    def __str__(self) -> str:
        """For people."""
        return f"{self.start_seconds:.3f}-{self.end_seconds:.3f} s"


def shots_between(
    cuts_seconds: Iterable[float],
    duration_seconds: float,
    *,
    edge_margin: float,
    margin_seconds: float = 0.0,
) -> list[Shot]:
    """The shots of a video, without the margins at its ends and at its cuts.

    Args:
        cuts_seconds: Times of each first frame of a new shot, in order.
        duration_seconds: Length of the video.
        edge_margin: Part of the video at each end that belongs to no shot, in [0, 0.5).
        margin_seconds: What belongs to no shot before and after each cut; of a shot that is shorter
            nothing is left.
    """
    first, last = edge_margin * duration_seconds, (1 - edge_margin) * duration_seconds
    cuts = [cut for cut in cuts_seconds if first < cut < last]
    starts = [first, *(cut + margin_seconds for cut in cuts)]
    ends = [*(cut - margin_seconds for cut in cuts), last]
    return [Shot(a, max(a, b)) for a, b in zip(starts, ends, strict=True)]


def place(draw: float, shots: Sequence[Shot], *, clip_seconds: float) -> tuple[Shot, float]:
    """Which shot a draw falls into, and the start of the clip there.

    Shots are met as often as they are long, starts within one evenly. The draw lies in [0, 1), and
    no shot is shorter than a clip.
    """
    total = sum(shot.seconds for shot in shots)
    for shot in shots:
        share = shot.seconds / total
        if draw < share:
            break
        draw -= share
    else:
        # Only rounding leads past the last one.
        draw = share
    room = shot.latest_start(clip_seconds) - shot.start_seconds
    return shot, shot.start_seconds + draw / share * room


def num_crops(duration_seconds: float, *, crops_per_minute: float) -> int:
    """Number of clips cut from a file: so many per minute, rounded up (authors' code)."""
    return math.ceil(round(crops_per_minute * duration_seconds / 60, 9))
