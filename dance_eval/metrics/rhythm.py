"""What all scores of rhythm share: moments of motion and of music, and the level of chance.

A dance that knows nothing of the music still has motion near many beats, more so the more it moves.
So every score stands beside its mean over circular shifts of the music, which keep how many beats
there are and their spacing and destroy only the phase, and a z score against those shifts.
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch

from dance_eval.metrics.clip import ClipMetric, MotionCurve, ScoredClip
from dance_eval.metrics.motion import DEFAULT_SMOOTHING_SECONDS, Minima, kinematic_beats
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number

_CHUNK_DISTANCES = 4_000_000


def nearest_gaps(
    motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, of_music: bool
) -> torch.Tensor:
    """Distance of each moment to the nearest one of the other side, in seconds, float64.

    Of the music's moments, shape (..., M), or of the motion's, shape (K,), then of shape (..., K).
    """
    gaps = (motion_seconds.double()[:, None] - music_seconds.double()[..., None, :]).abs()
    return gaps.amin(dim=-2 if of_music else -1)


def shifted_scores(
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    motion_seconds: torch.Tensor,
    music_seconds: torch.Tensor,
    *,
    duration_seconds: float,
    stream: torch.Generator,
    num_shifts: int = 1000,
) -> torch.Tensor:
    """Scores of the same motion against music moments moved around the clip in a circle.

    Their mean is the chance level of this clip. ``score`` takes motion moments, shape (K,), and
    musics, shape (S, M), to scores of shape (S,). The shifts, drawn from the stream, are uniform in
    [0, duration_seconds), where the music's moments, shape (M,), lie.
    """
    shifts = torch.rand(num_shifts, generator=stream, dtype=torch.float64) * duration_seconds
    musics = (music_seconds.double() + shifts[:, None]) % duration_seconds
    # Few at a time where there are many moments.
    size = max(_CHUNK_DISTANCES // max(len(motion_seconds) * len(music_seconds), 1), 1)
    return torch.cat([score(motion_seconds, part) for part in musics.split(size)])


class RhythmMetric(ClipMetric):
    """A score of motion moments against music moments, with the clip's level of chance.

    A subclass implements `score_moments`; it may replace where the moments come from.

    Values per clip, of which `compute` gives the means:
        score: In [0, 1]; 0 without beats on either side.
        chance: Mean score over circular shifts of the music.
        z: (score - chance) / standard deviation over the shifts; 0 where all shifts score the same.
        num_kinematic_beats, num_music_beats: Counts of moments within the clip.
        without_beats: 1 if either count is 0, else 0; the mean is the share of such clips.

    Args:
        smoothing_seconds: Gaussian over the motion curve; 0.0833 s is 2.5 frames at 30 fps.
        num_shifts: Circular shifts per clip.
        minima: ``"interpolated"`` finds rests between frames; ``"sampled"`` takes the frame pair
            with the least motion, as AIST++'s and Bailando's code do.
        motion: The motion curve, such as `optical_flow.OpticalFlow`; None takes the difference of
            frames.
    """

    value_names: ClassVar[tuple[str, ...]] = (
        *("score", "chance", "z"),
        *("num_kinematic_beats", "num_music_beats", "without_beats"),
    )

    def __init__(
        self,
        *,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        num_shifts: int = 1000,
        minima: Minima = "interpolated",
        motion: MotionCurve | None = None,
        name: str,
    ) -> None:
        super().__init__(name=name, part=motion)
        check_number("num_shifts", num_shifts, at_least=2, hint=", for a z score")
        self.smoothing_seconds = smoothing_seconds
        self.num_shifts = num_shifts
        self.minima = minima
        self.motion = motion
        # A setting that is out of range should be refused now, not after the first clip.
        self._beats(torch.zeros(0), fps=1.0)

    @abstractmethod
    def score_moments(
        self, motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, fps: float
    ) -> torch.Tensor:
        """Scores of a motion, shape (K,), against musics, shape (S, M), float64, shape (S,).

        There is a moment on both sides; those of the music are not sorted where it is shifted.
        """

    def motion_moments(self, clip: ScoredClip) -> torch.Tensor:
        """Kinematic beats of a clip in seconds, shape (K,)."""
        return self._beats(clip.motion_curve(self.motion), fps=clip.fps)

    def _beats(self, curve: torch.Tensor, *, fps: float) -> torch.Tensor:
        return kinematic_beats(
            curve, fps=fps, smoothing_seconds=self.smoothing_seconds, minima=self.minima
        )

    def music_moments(self, clip: ScoredClip) -> torch.Tensor:
        """Music beats of a clip in seconds, in [0, duration), shape (M,)."""
        return clip.music_beats()

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if the moments of motion or music cannot be had."""
        motion, music = self.motion_moments(clip), self.music_moments(clip)
        return self.values_of(motion, music, clip=clip, duration_seconds=clip.duration_seconds)

    def values_of(
        self,
        motion: torch.Tensor,
        music: torch.Tensor,
        *,
        clip: ScoredClip,
        duration_seconds: float,
    ) -> dict[str, float]:
        """The values of moments, shapes (K,) and (M,), in a clip or a part of it that is so long.

        Times are in seconds from the start of the part, in [0, duration_seconds).
        """
        counts = {
            "num_kinematic_beats": float(len(motion)),
            "num_music_beats": float(len(music)),
            "without_beats": float(len(motion) == 0 or len(music) == 0),
        }
        if counts["without_beats"]:
            return {"score": 0.0, "chance": 0.0, "z": 0.0, **counts}
        score_moments = functools.partial(self.score_moments, fps=clip.fps)
        score = float(score_moments(motion, music[None]))
        shifted = shifted_scores(
            score_moments,
            motion,
            music,
            duration_seconds=duration_seconds,
            stream=generator(clip.seed, clip.name, "beat shift"),
            num_shifts=self.num_shifts,
        )
        chance, spread = float(shifted.mean()), float(shifted.std())
        z = 0.0 if math.isclose(spread, 0.0, abs_tol=1e-12) else (score - chance) / spread
        return {"score": score, "chance": chance, "z": z, **counts}
