"""Beat alignment: how close the rests of the dance lie to the beats of the music.

Two directions are in use and their numbers differ. AIST++ (Li et al. 2021, arXiv 2101.08779)
averages over kinematic beats, the Bailando code over music beats. A random dance scores about 0.2
in the first, so the score is always given with its chance level.
"""

import functools
from typing import Literal

import torch

from dance_eval.metrics.motion import DEFAULT_SMOOTHING_SECONDS, MotionCurve
from dance_eval.metrics.rhythm import RhythmMetric, shifted_scores
from musicinfuser.errors import UserError

Direction = Literal["kinematic", "music"]


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
        raise UserError(f"sigma_seconds is {sigma_seconds}; the kernel needs a positive width.")
    if average_over not in ("kinematic", "music"):
        raise UserError(f"average_over is {average_over!r}; choose 'kinematic' or 'music'.")
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
    """Beat alignment of the same motion to music beats moved around the clip: its chance level.

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
    return shifted_scores(
        functools.partial(beat_alignment, sigma_seconds=sigma_seconds, average_over=average_over),
        kinematic_seconds,
        music_seconds,
        duration_seconds=duration_seconds,
        stream=stream,
        num_shifts=num_shifts,
    )


class BeatAlignment(RhythmMetric):
    """Beat alignment of a clip's motion to its music, with the chance level of that clip.

    Values are those of `RhythmMetric`; the score lies in [0, 1].

    Args:
        sigma_seconds: Width of the kernel.
        average_over: ``"kinematic"`` (AIST++) or ``"music"`` (Bailando).
        smoothing_seconds: Gaussian over the motion curve; 0.0833 s is 2.5 frames at 30 fps.
        num_shifts: Circular shifts per clip.
        motion: The motion curve, such as `optical_flow.OpticalFlow`; None takes the difference of
            frames.
        name: Name in tables; two instances in one table need two names.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        sigma_seconds: float = 0.05,
        average_over: Direction = "kinematic",
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        num_shifts: int = 1000,
        motion: MotionCurve | None = None,
        name: str = "beat_alignment",
    ) -> None:
        super().__init__(
            smoothing_seconds=smoothing_seconds, num_shifts=num_shifts, motion=motion, name=name
        )
        self.sigma_seconds = sigma_seconds
        self.average_over = average_over
        # A setting that is out of range should be refused now, not after the first clip.
        self.score_moments(torch.zeros(0), torch.zeros(1, 0), fps=1.0)

    def score_moments(
        self, motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, fps: float
    ) -> torch.Tensor:
        """`beat_alignment` with this metric's settings."""
        return beat_alignment(
            motion_seconds,
            music_seconds,
            sigma_seconds=self.sigma_seconds,
            average_over=self.average_over,
        )
