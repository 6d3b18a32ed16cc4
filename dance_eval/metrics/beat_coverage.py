"""Coverage: how many beats of the music the dance marks.

SingDance calls it MBCR, TMD-Bench (arXiv 2605.01809) ABHS: the share of music beats with a
kinematic beat within 0.1 s. Much motion covers much by chance, 1 - exp(-0.2 r) at r kinematic beats
per second, so the share is always given with its chance level.
"""

import torch

from dance_eval.metrics.motion import DEFAULT_SMOOTHING_SECONDS, MotionCurve
from dance_eval.metrics.rhythm import RhythmMetric
from musicinfuser.errors import UserError

# Times are decimal fractions; a gap of exactly the tolerance must survive their rounding.
_ROUNDING_SECONDS = 1e-9


def beat_coverage(
    kinematic_seconds: torch.Tensor, music_seconds: torch.Tensor, *, tolerance_seconds: float = 0.1
) -> torch.Tensor:
    """Share of music beats with a kinematic beat at most so far away.

    Args:
        kinematic_seconds: Beats of the motion, shape (K,).
        music_seconds: Beats of the music, shape (..., M); leading axes are scored one by one.
        tolerance_seconds: The largest distance that counts, included.

    Returns:
        Shares in [0, 1], float64, shape (...); 0 where either side has no beats.

    Raises:
        ValueError: If the tolerance is not positive.
    """
    if not tolerance_seconds > 0:
        raise UserError(f"tolerance_seconds is {tolerance_seconds}; give a positive time.")
    if kinematic_seconds.shape[-1] == 0 or music_seconds.shape[-1] == 0:
        return torch.zeros(music_seconds.shape[:-1], dtype=torch.float64)
    gaps = (kinematic_seconds.double()[:, None] - music_seconds.double()[..., None, :]).abs()
    is_covered = gaps.amin(dim=-2) <= tolerance_seconds + _ROUNDING_SECONDS
    return is_covered.double().mean(dim=-1)


class BeatCoverage(RhythmMetric):
    """Share of a clip's music beats that its motion marks, with the chance level of that clip.

    Values are those of `RhythmMetric`; the score lies in [0, 1].

    Args:
        tolerance_seconds: The largest distance that counts.
        smoothing_seconds: Gaussian over the motion curve; 0.0833 s is 2.5 frames at 30 fps.
        num_shifts: Circular shifts per clip.
        motion: The motion curve; None takes the difference of frames.
        name: Name in tables.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        tolerance_seconds: float = 0.1,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        num_shifts: int = 1000,
        motion: MotionCurve | None = None,
        name: str = "beat_coverage",
    ) -> None:
        super().__init__(
            smoothing_seconds=smoothing_seconds, num_shifts=num_shifts, motion=motion, name=name
        )
        self.tolerance_seconds = tolerance_seconds
        self.score_moments(torch.zeros(0), torch.zeros(1, 0), fps=1.0)

    def score_moments(
        self, motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, fps: float
    ) -> torch.Tensor:
        """`beat_coverage` with this metric's tolerance."""
        return beat_coverage(
            motion_seconds, music_seconds, tolerance_seconds=self.tolerance_seconds
        )
