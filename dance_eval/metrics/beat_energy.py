"""Motion at beats: does the dance still rest on the beats of music that was taken away?

CAT-LoRA asks whether silence suppresses the beat; the form is ours. The same request is generated
with silence in place of its track (configs/control/silence.yaml), and how much moves at the beats
of the track is compared with how much moves in all. A model that follows audio has no way to know
these beats any more.
"""

import numpy as np
import torch

from dance_eval.metrics.clip import ClipMetric, MotionCurve, ScoredClip
from dance_eval.metrics.motion import (
    DEFAULT_SMOOTHING_SECONDS,
    gaussian_smoothed,
    kinematic_beats,
)


def energy_at(curve: torch.Tensor, beats_seconds: torch.Tensor, *, fps: float) -> float | None:
    """Mean of a motion curve at moments, over its mean.

    Linear between samples, of which i lies at (i + 0.5) / fps; the ends go on as they are. Its mean
    over all circular shifts of the moments is 1. Takes a curve of shape (N,), 0 or more, and times
    in seconds, shape (M,); None without moments or motion.
    """
    mean = float(curve.mean()) if len(curve) else 0.0
    if not len(beats_seconds) or mean < 1e-12:
        return None
    times = (np.arange(len(curve)) + 0.5) / fps
    return float(np.interp(beats_seconds.numpy(), times, curve.numpy()).mean()) / mean


class BeatEnergy(ClipMetric):
    """How much moves at the beats of a clip's track, relative to the whole clip.

    The beats are those of the track also where the model heard something else, such as silence.

    Values per clip, of which `compute` gives the means:
        at_beats: `energy_at` of the beats: 1 by chance, 0 if everything stands still on each beat.
        level: Mean of the motion curve, in its own unit.
        without_beats: 1 if there is no beat or no motion, else 0; such clips have no at_beats.

    Args:
        smoothing_seconds: Gaussian over the motion curve, 0 or more.
        motion: The motion curve; None takes the difference of frames.
    """

    value_names = ("at_beats", "level", "without_beats")
    optional_names = frozenset({"at_beats"})

    def __init__(
        self,
        *,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        motion: MotionCurve | None = None,
        name: str = "beat_energy",
    ) -> None:
        super().__init__(name=name, part=motion)
        # A setting that is out of range should be refused now, not after the first clip.
        kinematic_beats(torch.zeros(0), fps=1.0, smoothing_seconds=smoothing_seconds)
        self.smoothing_seconds = smoothing_seconds
        self.motion = motion

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if the beats cannot be had."""
        sigma = self.smoothing_seconds * clip.fps
        curve = gaussian_smoothed(clip.motion_curve(self.motion), sigma_samples=sigma)
        found = energy_at(curve, clip.music_beats(), fps=clip.fps)
        level = float(curve.mean()) if len(curve) else 0.0
        values = {"level": level, "without_beats": float(found is None)}
        return values if found is None else values | {"at_beats": found}
