"""Kinematic beats from pixels: the moments at which the picture moves least.

AIST++ (Li et al. 2021, arXiv 2101.08779) takes them from joints, as local minima of their speed.
Generated clips have no joints, so the speed here is the mean absolute difference of neighbouring
grey frames. Any other `clip.MotionCurve` can take its place: `optical_flow.OpticalFlow`, or the
speed of joints that are known (`joint_track.JointTrack`).
"""

import math
from typing import Literal, get_args

import torch

from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_choice, check_number

DEFAULT_SMOOTHING_SECONDS = 2.5 / 30
"""2.5 frames at 30 fps, the same time as Bailando's 5 frames at 60 fps."""
Minima = Literal["interpolated", "sampled"]
"""Where a minimum lies: at the vertex of a parabola, or at a sample as in published code."""
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # BT.601 luma, as in OpenCV's RGB2GRAY


def require_frames(frames: torch.Tensor) -> None:
    """ValueError unless these are frames, uint8 RGB of shape (T, H, W, 3)."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"Frames of shape {tuple(frames.shape)} and type {frames.dtype} are not uint8 "
            "(T, H, W, 3); permute or convert them first."
        )


def frame_difference(frames: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring grey frames.

    Takes uint8 RGB in [0, 255], shape (T, H, W, 3), to float64 in [0, 255], shape (T - 1,).
    """
    require_frames(frames)
    weights = torch.tensor(GREY_WEIGHTS, device=frames.device)
    changes = torch.zeros(max(len(frames) - 1, 0), dtype=torch.float64)
    # Frame by frame, because all grey frames of a 720p clip at once would take a gigabyte.
    previous = None
    for index, frame in enumerate(frames):
        grey = frame.float() @ weights
        if previous is not None:
            changes[index - 1] = (grey - previous).abs().mean().double()
        previous = grey
    return changes


def gaussian_smoothed(curve: torch.Tensor, *, sigma_samples: float) -> torch.Tensor:
    """Convolve a curve with a Gaussian, mirroring it at both ends, as the Bailando code does.

    Takes shape (N,) to float64 (N,); a standard deviation of 0 samples leaves the curve as it is.
    """
    from scipy.ndimage import gaussian_filter1d

    curve = curve.double()
    if not len(curve) or sigma_samples < 0.125:  # the kernel, cut at 4 sigma, is one sample
        return curve
    return torch.from_numpy(gaussian_filter1d(curve.cpu().numpy(), sigma_samples, mode="reflect"))


def local_minima(curve: torch.Tensor, *, minima: Minima = "sampled") -> torch.Tensor:
    """Positions of the local minima of a curve of shape (N,), ascending, float64.

    A sample below both neighbours counts. So does a pair of equal samples below both of its
    neighbours, at the middle of the pair: a stop that falls exactly on a frame is seen equally by
    the two frame pairs around it, and strict comparison would lose just these beats. A longer flat
    stretch is a rest without a moment of its own and does not count; neither do the two ends.
    Values that differ by less than 1e-9 of the largest count as equal.

    ``"sampled"`` gives whole and half positions. ``"interpolated"`` moves a single sample to the
    vertex of the parabola through it and its neighbours, at most half a sample away; the middle of
    an equal pair is that vertex already.
    """
    check_choice("minima", minima, get_args(Minima))
    curve = curve.double()
    if len(curve) < 3:
        return torch.zeros(0, dtype=torch.float64)
    tolerance = 1e-9 * float(curve.abs().max())
    steps = curve.diff()
    falls, rises = steps < -tolerance, steps > tolerance
    flat = ~falls & ~rises
    at = torch.nonzero(falls[:-1] & rises[1:]).flatten() + 1
    single = at.double()
    if minima == "interpolated":
        fall, rise = -steps[at - 1], steps[at]
        single = single + 0.5 * (fall - rise) / (fall + rise)
    double = torch.nonzero(falls[:-2] & flat[1:-1] & rises[2:]).flatten() + 1.5
    return torch.cat([single, double.double()]).sort().values


def kinematic_beats(
    curve: torch.Tensor,
    *,
    fps: float,
    smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
    minima: Minima = "interpolated",
) -> torch.Tensor:
    """Times at which a motion curve, shape (T - 1,), has its local minima.

    The change between frames i and i + 1 happens around (i + 0.5) / fps. The curve is smoothed by a
    Gaussian of such a standard deviation; 0 is none. Minima are found as `local_minima` says;
    sampled ones are up to half a frame off, 17 ms at 30 fps. Ascending, in seconds from the first
    frame, float64; `UserError` if the rate is not positive or the smoothing is negative.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise UserError(f"A clip at {fps} frames per second has no time axis; give its real rate.")
    check_number("smoothing_seconds", smoothing_seconds, at_least=0)
    smoothed = gaussian_smoothed(curve, sigma_samples=smoothing_seconds * fps)
    return (local_minima(smoothed, minima=minima) + 0.5) / fps
