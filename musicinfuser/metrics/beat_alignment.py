"""Beat alignment: how close the rests of the dance lie to the beats of the music.

Two directions are in use and their numbers differ. AIST++ (Li et al. 2021, arXiv 2101.08779)
averages over kinematic beats, the Bailando code over music beats. A random dance scores about 0.2
in the first, so the score is always given with its chance level.
"""

import math
from typing import Literal

import torch

from musicinfuser.keyed_random import generator
from musicinfuser.metrics.clip import ClipMetric, ScoredClip
from musicinfuser.metrics.motion import MotionCurve, frame_difference, kinematic_beats

Direction = Literal["kinematic", "music"]

_CHUNK_DISTANCES = 4_000_000


def beat_alignment(
    kinematic_seconds: torch.Tensor,
    music_seconds: torch.Tensor,
    *,
    sigma_seconds: float = 0.05,
    average_over: Direction = "kinematic",
) -> torch.Tensor:
    """Mean of exp(-d^2 / (2 sigma^2)) over beats, d being the distance to the nearest other beat.

    Args:
        kinematic_seconds: Beats of the motion, shape (K,).
        music_seconds: Beats of the music, shape (..., M); leading axes are scored one by one.
        sigma_seconds: Width of the kernel; AIST++'s 3 frames at 60 fps are 0.05 s.
        average_over: ``"kinematic"`` asks of every motion beat whether music is near (AIST++);
            ``"music"`` asks of every music beat whether motion is near (Bailando).

    Returns:
        Scores in [0, 1], float64, shape (...); 0 where either side has no beats.

    Raises:
        ValueError: If sigma is not positive or the direction is unknown.
    """
    if not sigma_seconds > 0:
        raise ValueError(f"sigma_seconds is {sigma_seconds}; the kernel needs a positive width.")
    if average_over not in ("kinematic", "music"):
        raise ValueError(f"average_over is {average_over!r}; choose 'kinematic' or 'music'.")
    if kinematic_seconds.shape[-1] == 0 or music_seconds.shape[-1] == 0:
        return torch.zeros(music_seconds.shape[:-1], dtype=torch.float64)
    gaps = (kinematic_seconds.double()[:, None] - music_seconds.double()[..., None, :]).abs()
    nearest = gaps.amin(dim=-1 if average_over == "kinematic" else -2)
    return torch.exp(-0.5 * (nearest / sigma_seconds) ** 2).mean(dim=-1)


def shifted_alignments(
    kinematic_seconds: torch.Tensor,
    music_seconds: torch.Tensor,
    *,
    duration_seconds: float,
    stream: torch.Generator,
    num_shifts: int = 1000,
    sigma_seconds: float = 0.05,
    average_over: Direction = "kinematic",
) -> torch.Tensor:
    """Scores of the same motion against music beats moved around the clip in a circle.

    Their mean is the chance level of this clip: it keeps the number of beats and their spacing and
    destroys only the phase.

    Args:
        kinematic_seconds: Shape (K,).
        music_seconds: In [0, duration_seconds), shape (M,).
        duration_seconds: Length of the circle.
        stream: Where the shifts are drawn, uniform in [0, duration_seconds).
        num_shifts: Number of shifts.
        sigma_seconds: As in `beat_alignment`.
        average_over: As in `beat_alignment`.

    Returns:
        float64, shape (num_shifts,).
    """
    shifts = torch.rand(num_shifts, generator=stream, dtype=torch.float64) * duration_seconds
    pairs = max(len(kinematic_seconds) * len(music_seconds), 1)
    scores = [
        beat_alignment(
            kinematic_seconds,
            (music_seconds.double() + part[:, None]) % duration_seconds,
            sigma_seconds=sigma_seconds,
            average_over=average_over,
        )
        for part in shifts.split(max(_CHUNK_DISTANCES // pairs, 1))
    ]
    return torch.cat(scores)


class BeatAlignment(ClipMetric):
    """Beat alignment of a clip's motion to its music, with the chance level of that clip.

    Values per clip, of which `compute` gives the means:
        score: Beat alignment in [0, 1]; 0 without beats on either side.
        chance: Mean score over circular shifts of the music beats.
        z: (score - chance) / standard deviation over the shifts; 0 where all shifts score the same.
        num_kinematic_beats, num_music_beats: Counts within the clip.
        without_beats: 1 if either count is 0, else 0; the mean is the share of such clips.

    Args:
        sigma_seconds: Width of the kernel.
        average_over: ``"kinematic"`` (AIST++) or ``"music"`` (Bailando).
        smoothing_seconds: Gaussian over the motion curve; 0.0833 s is 2.5 frames at 30 fps.
        num_shifts: Circular shifts per clip.
        motion: The motion curve, such as `pose.PoseSpeed`; None takes the difference of frames.
        name: Name in tables; two instances in one table need two names.

    Raises:
        ValueError: If an argument is out of range.
    """

    value_names = (
        "score",
        "chance",
        "z",
        "num_kinematic_beats",
        "num_music_beats",
        "without_beats",
    )

    def __init__(
        self,
        *,
        sigma_seconds: float = 0.05,
        average_over: Direction = "kinematic",
        smoothing_seconds: float = 2.5 / 30,
        num_shifts: int = 1000,
        motion: MotionCurve | None = None,
        name: str = "beat_alignment",
    ) -> None:
        super().__init__(name=name)
        if num_shifts < 2:
            raise ValueError(f"num_shifts is {num_shifts}; a z score needs at least 2.")
        self.sigma_seconds = sigma_seconds
        self.average_over = average_over
        self.smoothing_seconds = smoothing_seconds
        self.num_shifts = num_shifts
        self.motion = motion
        # A setting that is out of range should be refused now, not after the first clip.
        kinematic_beats(torch.zeros(0, 1, 1, 3), fps=1.0, smoothing_seconds=smoothing_seconds)
        self._score(torch.zeros(0), torch.zeros(0))

    def _score(self, kinematic: torch.Tensor, music: torch.Tensor) -> float:
        return float(
            beat_alignment(
                kinematic,
                music,
                sigma_seconds=self.sigma_seconds,
                average_over=self.average_over,
            )
        )

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Score one clip.

        Raises:
            ValueError: If the music beats of the clip cannot be had.
        """
        kinematic = kinematic_beats(
            clip.frames,
            fps=clip.fps,
            smoothing_seconds=self.smoothing_seconds,
            motion=self.motion or frame_difference,
        )
        music = clip.music_beats()
        score = self._score(kinematic, music)
        shifted = shifted_alignments(
            kinematic,
            music,
            duration_seconds=clip.duration_seconds,
            stream=generator(clip.seed, clip.name, "beat shift"),
            num_shifts=self.num_shifts,
            sigma_seconds=self.sigma_seconds,
            average_over=self.average_over,
        )
        chance, spread = float(shifted.mean()), float(shifted.std())
        return {
            "score": score,
            "chance": chance,
            "z": 0.0 if math.isclose(spread, 0.0, abs_tol=1e-12) else (score - chance) / spread,
            "num_kinematic_beats": float(len(kinematic)),
            "num_music_beats": float(len(music)),
            "without_beats": float(len(kinematic) == 0 or len(music) == 0),
        }

    def fingerprints(self) -> dict[str, str]:
        """Those of the motion curve, where it reads weights."""
        return {} if self.motion is None else self.motion.fingerprints()
