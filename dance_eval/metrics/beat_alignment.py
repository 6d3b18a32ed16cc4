"""Beat alignment: how close the kinematic beats of a dance lie to the beats of the music.

Two directions are in use and their numbers differ. AIST++ (Li et al. 2021, arXiv 2101.08779)
averages over kinematic beats, the Bailando code over music beats. A random dance scores about 0.2
in the first, so the score is always given with its chance level.
"""

from typing import Any, Literal, get_args

import torch

from dance_eval.metrics.rhythm import RhythmMetric, nearest_gaps
from musicinfuser.setting_checks import check_choice, check_number

Direction = Literal["kinematic", "music"]


def beat_alignment(
    kinematic_seconds: torch.Tensor,
    music_seconds: torch.Tensor,
    *,
    sigma_seconds: float = 0.05,
    average_over: Direction = "kinematic",
) -> torch.Tensor:
    """Mean of exp(-d^2 / (2 sigma^2)) over beats, d being the distance to the nearest other beat.

    Averaged over beats of the motion (AIST++) or of the music (Bailando); AIST++'s sigma of 3
    frames at 60 fps is 0.05 s. Takes beats of the motion, shape (K,), and of the music, (..., M),
    to scores in [0, 1], float64, shape (...); 0 where either side has no beats.
    """
    check_number("sigma_seconds", sigma_seconds, above=0)
    check_choice("average_over", average_over, get_args(Direction))
    if kinematic_seconds.shape[-1] == 0 or music_seconds.shape[-1] == 0:
        return torch.zeros(music_seconds.shape[:-1], dtype=torch.float64)
    nearest = nearest_gaps(kinematic_seconds, music_seconds, of_music=average_over == "music")
    return torch.exp(-0.5 * (nearest / sigma_seconds) ** 2).mean(dim=-1)


class BeatAlignment(RhythmMetric):
    """Beat alignment of a clip's motion to its music, with the chance level of that clip.

    Args:
        sigma_seconds: As in `beat_alignment`.
        average_over: As in `beat_alignment`.
        **rhythm: Arguments of `RhythmMetric`.
    """

    def __init__(
        self,
        *,
        sigma_seconds: float = 0.05,
        average_over: Direction = "kinematic",
        name: str = "beat_alignment",
        **rhythm: Any,
    ) -> None:
        super().__init__(name=name, **rhythm)
        self.sigma_seconds = sigma_seconds
        self.average_over = average_over
        self.score_moments(torch.zeros(0), torch.zeros(1, 0), fps=1.0)  # checks the settings

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
