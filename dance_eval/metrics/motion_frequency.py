"""The dominant frequency of a clip's motion, to see whether a dance follows the tempo."""

import torch

from dance_eval.metrics.clip import ClipMetric, MotionCurve, ScoredClip
from musicinfuser.errors import UserError

DEFAULT_BAND_HZ = (0.5, 6.0)
"""From one move in two seconds to three per beat at 120 beats per minute."""

NUM_BINS = 4096


def dominant_frequency(
    curve: torch.Tensor, *, rate_hz: float, band_hz: tuple[float, float] = DEFAULT_BAND_HZ
) -> float:
    """The frequency at which a curve has most power.

    The curve loses its mean, is weighted with a Hann window, and is padded with zeros to
    `NUM_BINS` samples or more: the bins of a clip of a few seconds alone would be wider than the
    differences of tempo that are looked for. Takes shape (N,), N of 4 or more, to Hertz within the
    band; 0 for a curve without any motion. `UserError` for fewer samples or an empty band.
    """
    low, high = band_hz
    if not 0 <= low < high:
        raise UserError(f"band_hz is {band_hz}; give a lower and a higher frequency.")
    if len(curve) < 4:
        raise UserError(f"A motion curve of {len(curve)} samples has no frequency.")
    centred = curve.double() - curve.double().mean()
    if float(centred.abs().max()) < 1e-12:
        return 0.0
    window = torch.hann_window(len(curve), periodic=False, dtype=torch.float64)
    length = max(NUM_BINS, len(curve))
    power = torch.fft.rfft(centred * window, n=length).abs() ** 2
    frequencies = torch.arange(len(power)) * rate_hz / length
    inside = (frequencies >= low) & (frequencies <= high)
    if not bool(inside.any()):
        raise UserError(f"band_hz {band_hz} lies above what {rate_hz} samples per second show.")
    return float(frequencies[inside][power[inside].argmax()])


class MotionFrequency(ClipMetric):
    """Dominant frequency of the motion of a clip.

    Two clips that differ only in the tempo of their music should have frequencies in the ratio of
    the tempi.

    Values per clip, of which `compute` gives the means:
        hertz: The dominant frequency; 0 for a still clip.

    Args:
        motion: The motion curve, such as `pose.PoseSpeed`; None takes the difference of frames.
        lowest_hz: Lower end of the band that is searched.
        highest_hz: Upper end.
    """

    value_names = ("hertz",)

    def __init__(
        self,
        *,
        motion: MotionCurve | None = None,
        lowest_hz: float = DEFAULT_BAND_HZ[0],
        highest_hz: float = DEFAULT_BAND_HZ[1],
        name: str = "motion_frequency",
    ) -> None:
        super().__init__(name=name, part=motion)
        self.motion = motion
        self.band_hz = (lowest_hz, highest_hz)
        dominant_frequency(torch.arange(4.0), rate_hz=4 * highest_hz, band_hz=self.band_hz)

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The value; `UserError` if the clip has fewer than five frames."""
        curve = clip.motion_curve(self.motion)
        return {"hertz": dominant_frequency(curve, rate_hz=clip.fps, band_hz=self.band_hz)}
