"""Lag response: does the dance come later by as much as its sound does?

CAT-LoRA asks this of generated dances; the form is ours. The same request (track, start, prompt and
seed) is generated with the sound 0, 100, 200, 300 and 400 ms late (configs/control/lag.yaml). What
moves is compared within such a group, so nothing need be known of the beats.
"""

import math
from collections.abc import Mapping
from itertools import combinations
from statistics import fmean

import numpy as np
import torch

from dance_eval.metrics.clip import Descriptions, Labels, MotionCurve, Summary, count, label
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import start_of
from dance_eval.metrics.motion import DEFAULT_SMOOTHING_SECONDS
from dance_eval.metrics.music_response import CurveSetMetric
from musicinfuser.generation_requests import SHIFTED
from musicinfuser.setting_checks import check_number

SLOPES = np.linspace(-1.5, 1.5, 601)
"""Slopes that are tried. As many lie below that of a model that ignores audio, 0, as above it."""
_EVEN = 1e-6
"""Agreements nearer than this are equal; the slope nearest to 0 is taken."""


def correlations(first: np.ndarray, second: np.ndarray, max_lag: int) -> np.ndarray:
    """Pearson correlation of a curve with a later one, by lag from -max_lag to max_lag samples.

    At lag k sample i of the first stands beside sample i + k of the second; means and lengths are
    those of the samples that stand beside one, so ends count for nothing. Takes two of shape (N,),
    N above max_lag + 1, to (2 * max_lag + 1,) in [-1, 1]; 0 where one of them is constant.
    """
    first, second = first - first.mean(), second - second.mean()
    lags = np.arange(-max_lag, max_lag + 1)
    num = len(first)
    products = np.correlate(second, first, "full")[num - 1 + lags]
    start_a, start_b = np.maximum(-lags, 0), np.maximum(lags, 0)
    shared = num - np.abs(lags)

    def sums(curve: np.ndarray, start: np.ndarray) -> np.ndarray:
        up_to = np.concatenate([[0.0], np.cumsum(curve)])
        return up_to[start + shared] - up_to[start]

    sum_a, sum_b = sums(first, start_a), sums(second, start_b)
    square_a = sums(first**2, start_a) - sum_a**2 / shared
    square_b = sums(second**2, start_b) - sum_b**2 / shared
    spread = square_a * square_b
    is_moving = spread > 1e-12 * max(float(first @ first) * float(second @ second), 1e-24)
    spread = np.where(is_moving, spread, 1.0)
    return np.where(is_moving, (products - sum_a * sum_b / shared) / np.sqrt(spread), 0.0)


def lag_slope(curves: Mapping[float, np.ndarray], *, fps: float) -> tuple[float, float] | None:
    """By how much the motion of clips is late, over how much their sound is.

    Of two clips whose sounds are d apart, a dance that follows by the slope s is s * d apart. The
    slope is the one in [-1.5, 1.5] at which the mean over all pairs of `correlations` is highest;
    between whole frames a cubic spline says how high. One pair alone cannot tell a lag from the
    same lag and one beat: for pairs 100, 200, 300 and 400 ms apart only the true slope fits all,
    if the motion's period is above 250 ms. Nothing leans towards 1: with the shifts in reverse the
    slope changes its sign, so clips that do not know their shift have one of 0 on average.

    Args:
        curves: Motion curve of shape (N,) by shift of the sound in seconds.
        fps: Samples per second.

    Returns:
        Slope and mean correlation there; None for fewer than two shifts, curves of several lengths,
        a largest lag above half of their length, or motion that has no correlation at any lag.
    """
    from scipy.interpolate import CubicSpline

    shifts = sorted(curves)
    if len(shifts) < 2 or len({len(curve) for curve in curves.values()}) > 1:
        return None
    if 2 * _max_lag(shifts[-1] - shifts[0], fps) > len(curves[shifts[0]]):
        return None
    agreement = np.zeros_like(SLOPES)
    for one, other in combinations(shifts, 2):
        max_lag = _max_lag(other - one, fps)
        by_lag = correlations(curves[one], curves[other], max_lag)
        spline = CubicSpline(np.arange(-max_lag, max_lag + 1), by_lag)
        agreement += spline(SLOPES * (other - one) * fps)
    agreement /= math.comb(len(shifts), 2)
    if not agreement.any():
        return None
    best = SLOPES[agreement >= agreement.max() - _EVEN]
    return float(best[np.abs(best).argmin()]), float(agreement.max())


def _max_lag(seconds: float, fps: float) -> int:
    """Samples of the largest lag that is tried, and two for the spline."""
    return math.ceil(float(SLOPES[-1]) * seconds * fps) + 2


class LagResponse(CurveSetMetric):
    """How much later a system dances where its sound comes later.

    A group is the clips of one folder that share music, start, prompt and seed; those of systems
    called ``<name>, shifted audio`` belong to ``<name>``. The shift of a clip is its start in the
    track minus where the audio conditioning starts (``heard_offset_seconds``).

    Values, over groups with clips at two or more shifts:
        slope: Mean of `lag_slope`: 1 for a dance that follows, 0 for one that ignores audio.
        agreement: Mean correlation of the motion of two clips at that slope.
        num_without_slope: Groups with shifted clips of which none can be told: a clip alone, clips
            of unlike length or rate or too short, or nothing that moves.

    Args:
        max_shift_seconds: Clips conditioned on their track from further away are no part of it.
        smoothing_seconds: Gaussian over the motion curve, 0 or more.
        motion: The motion curve; None takes the difference of frames.
    """

    value_names = ("slope", "agreement", "num_without_slope")
    combining = frozenset({"max_shift_seconds"})

    def __init__(
        self,
        *,
        max_shift_seconds: float = 0.5,
        smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
        motion: MotionCurve | None = None,
        name: str = "lag_response",
    ) -> None:
        super().__init__(smoothing_seconds=smoothing_seconds, motion=motion, name=name)
        check_number("max_shift_seconds", max_shift_seconds, above=0)
        self.max_shift_seconds = max_shift_seconds

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Group, folder and shift in milliseconds."""
        if entry.system.removesuffix(f", {SHIFTED}") != system:
            return None
        shift = 0
        if entry.heard is not None:
            heard, start = self.pieces.conditioned_on(entry), entry.heard_offset_seconds
            if heard != self.pieces.of(entry) or start is None:
                return None
            shift = round(1000 * (entry.track_offset_seconds - start))
        if abs(shift) > 1000 * self.max_shift_seconds:
            return None
        group = label(self.pieces.of(entry), start_of(entry), entry.prompt, entry.seed)
        return group, label(str(entry.folder.resolve())), shift

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Means over groups, which are resampled as a whole, and a count."""
        clips: dict[int, dict[int, dict[int, torch.Tensor]]] = {}
        for numbers, (group, folder, shift) in zip(descriptions, labels, strict=True):
            clips.setdefault(group, {}).setdefault(folder, {}).setdefault(shift, numbers)
        slopes: list[float] = []
        agreements: list[float] = []
        num_groups = 0
        for folders in clips.values():
            shifted = [own for own in folders.values() if any(own)]
            found = [one for own in shifted if (one := _slope_of(own)) is not None]
            num_groups += bool(shifted)
            if found:
                slopes.append(fmean(slope for slope, _ in found))
                agreements.append(fmean(agreement for _, agreement in found))
        return {
            value: bootstrap_mean(
                numbers, seed=seed, name=f"{self.name}/{value}", confidence=confidence
            )
            for value, numbers in (("slope", slopes), ("agreement", agreements))
        } | {"num_without_slope": count(num_groups - len(slopes), out_of=num_groups)}


def _slope_of(described: Mapping[int, torch.Tensor]) -> tuple[float, float] | None:
    """`lag_slope` of what `CurveSetMetric` keeps, by shift in milliseconds."""
    rates = {float(numbers[0]) for numbers in described.values()}
    curves = {shift / 1000: numbers[1:].numpy() for shift, numbers in described.items()}
    return lag_slope(curves, fps=rates.pop()) if len(rates) == 1 else None
