"""Coverage: how many beats of the music the dance marks.

SingDance calls it MBCR, TMD-Bench (arXiv 2605.01809) ABHS: the share of music beats with a
kinematic beat within 0.1 s. Much motion covers much by chance, 1 - exp(-0.2 r) at r kinematic beats
per second, so the share is always given with its chance level.
"""

from typing import Any

import torch

from dance_eval.metrics.rhythm import RhythmMetric, nearest_gaps
from musicinfuser.setting_checks import check_number

# Times are decimal fractions; a gap of exactly the tolerance must survive their rounding.
_ROUNDING_SECONDS = 1e-9


def beat_coverage(
    kinematic_seconds: torch.Tensor, music_seconds: torch.Tensor, *, tolerance_seconds: float = 0.1
) -> torch.Tensor:
    """Share of music beats with a kinematic beat at most so far away, the tolerance included.

    Takes beats of the motion, shape (K,), and of the music, (..., M), to shares in [0, 1], float64,
    shape (...); 0 where either side has no beats.
    """
    check_number("tolerance_seconds", tolerance_seconds, above=0)
    if kinematic_seconds.shape[-1] == 0 or music_seconds.shape[-1] == 0:
        return torch.zeros(music_seconds.shape[:-1], dtype=torch.float64)
    nearest = nearest_gaps(kinematic_seconds, music_seconds, of_music=True)
    return (nearest <= tolerance_seconds + _ROUNDING_SECONDS).double().mean(dim=-1)


class BeatCoverage(RhythmMetric):
    """Share of a clip's music beats that its motion marks, with the chance level of that clip.

    Args:
        tolerance_seconds: The largest distance that counts.
        **rhythm: Arguments of `RhythmMetric`.
    """

    def __init__(
        self, *, tolerance_seconds: float = 0.1, name: str = "beat_coverage", **rhythm: Any
    ) -> None:
        super().__init__(name=name, **rhythm)
        self.tolerance_seconds = tolerance_seconds
        self.score_moments(torch.zeros(0), torch.zeros(1, 0), fps=1.0)  # checks the settings

    def score_moments(
        self, motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, fps: float
    ) -> torch.Tensor:
        """`beat_coverage` with this metric's tolerance."""
        tolerance = self.tolerance_seconds
        return beat_coverage(motion_seconds, music_seconds, tolerance_seconds=tolerance)
