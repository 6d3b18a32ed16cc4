"""AV-Align: do peaks of motion fall on onsets of the sound?

Yariv et al. 2023 (TempoTokens, arXiv 2309.16429), as their `av_align.py` computes it, with two
differences: their code divides by zero where there are no peaks, which is 0 here, and it counts all
onsets of the sound, also those after the last frame, where no motion can be near; onsets count here
up to the end of the picture. Where sound and picture end together the values are theirs. It rewards
motion at its fastest where beat alignment rewards rest; for a swing the two are half a period
apart, so a dance that scores high in one may score low in the other.
"""

import torch

from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.optical_flow import OpticalFlow
from dance_eval.metrics.rhythm import RhythmMetric
from musicinfuser.errors import UserError
from musicinfuser.media.librosa_import import import_librosa
from musicinfuser.setting_checks import check_number

ONSET_RATE_HZ = 22050
"""librosa's own rate, at which the authors load sound; onsets lie on a grid of 512 samples."""


def onset_peaks(waveform: torch.Tensor, *, rate_hz: int) -> torch.Tensor:
    """Onsets of a sound by librosa's detector with its default settings at `ONSET_RATE_HZ`.

    Takes float32 mono in [-1, 1], shape (S,), to ascending times in seconds, float64, shape (A,).
    """
    if not len(waveform):
        return torch.zeros(0, dtype=torch.float64)
    librosa = import_librosa()
    sound = librosa.resample(waveform.cpu().numpy(), orig_sr=rate_hz, target_sr=ONSET_RATE_HZ)
    onsets = librosa.onset.onset_detect(y=sound, sr=ONSET_RATE_HZ, units="time")
    return torch.as_tensor(onsets, dtype=torch.float64)


def motion_peaks(curve: torch.Tensor, *, fps: float, threshold: float = 0.1) -> torch.Tensor:
    """Strict local maxima of a motion curve.

    The curve's first value stands for the first frame as well, so that frame i has the motion from
    frame i - 1; the first and the last frame are no peaks, nor are maxima below the threshold.
    Takes shape (T - 1,) to ascending times i / fps in seconds, float64, shape (V,).
    """
    by_frame = torch.cat([curve[:1], curve]).double()
    if len(by_frame) < 3:
        return torch.zeros(0, dtype=torch.float64)
    middle = by_frame[1:-1]
    is_peak = (middle > by_frame[:-2]) & (middle > by_frame[2:]) & (middle >= threshold)
    return (torch.nonzero(is_peak).flatten() + 1).double() / fps


def peak_overlap(
    motion_seconds: torch.Tensor, sound_seconds: torch.Tensor, *, window_seconds: float
) -> torch.Tensor:
    """Intersection over union of two lists of peaks.

    Each sound peak, in order of time, takes the first motion peak that is not taken and lies less
    than the window away, for which the authors take one frame. Takes ascending peaks of the motion,
    shape (V,), and of sounds, (..., A), to n / (A + V - n) with n pairs, in [0, 1], float64, shape
    (...); 0 without peaks.
    """
    num_motion, num_sound = len(motion_seconds), sound_seconds.shape[-1]
    num_pairs = torch.zeros(sound_seconds.shape[:-1], dtype=torch.float64)
    if num_motion == 0:
        return num_pairs
    motion = motion_seconds.double()
    is_free = torch.ones(*sound_seconds.shape[:-1], num_motion, dtype=torch.bool)
    for peak in sound_seconds.double().sort(dim=-1).values.unbind(dim=-1):
        peak = peak[..., None]
        fits = is_free & (motion - window_seconds < peak) & (peak < motion + window_seconds)
        first = fits & (fits.cumsum(dim=-1) == 1)
        is_free &= ~first
        num_pairs += first.any(dim=-1)
    return num_pairs / (num_sound + num_motion - num_pairs)


class AVAlign(RhythmMetric):
    """AV-Align of a clip, with the chance level of that clip.

    Values are those of `RhythmMetric`, with peaks of motion and of sound in place of beats.

    Args:
        threshold: Smaller peaks of motion do not count; the authors' 0.1 is in pixels per frame.
        num_shifts: Circular shifts per clip.
        motion: The motion curve; None takes `OpticalFlow` at 424x240, in pixels of the full size.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.1,
        num_shifts: int = 1000,
        motion: MotionCurve | None = None,
        name: str = "av_align",
    ) -> None:
        super().__init__(
            smoothing_seconds=0.0, num_shifts=num_shifts, motion=motion or OpticalFlow(), name=name
        )
        check_number("threshold", threshold, at_least=0)
        self.threshold = threshold

    def motion_moments(self, clip: ScoredClip) -> torch.Tensor:
        """Peaks of motion in seconds, shape (V,)."""
        curve = clip.motion_curve(self.motion)
        return motion_peaks(curve, fps=clip.fps, threshold=self.threshold)

    def music_moments(self, clip: ScoredClip) -> torch.Tensor:
        """Onsets up to the end of the picture in seconds, shape (A,); UserError without sound."""
        if clip.waveform is None:
            raise UserError(f"{clip.name}: has no soundtrack to find onsets in.")
        onsets = onset_peaks(clip.waveform, rate_hz=clip.rate_hz)
        return onsets[onsets < clip.duration_seconds]

    def score_moments(
        self, motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, fps: float
    ) -> torch.Tensor:
        """`peak_overlap` with a window of one frame."""
        return peak_overlap(motion_seconds, music_seconds, window_seconds=1 / fps)
