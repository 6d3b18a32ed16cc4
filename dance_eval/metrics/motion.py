"""Kinematic beats from pixels: the moments at which the picture moves least.

AIST++ (Li et al. 2021, arXiv 2101.08779) takes them from joints, as local minima of their speed.
Generated clips have no joints, so the speed here is the mean absolute difference of neighbouring
grey frames. Any other `MotionCurve` can take its place: `optical_flow.OpticalFlow`, the speed of
joints that are known (`joint_track.JointTrack`) or found by a network (`pose.PoseSpeed`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from musicinfuser.errors import UserError

if TYPE_CHECKING:
    from dance_eval.metrics.clip import ScoredClip

DEFAULT_SMOOTHING_SECONDS = 2.5 / 30
"""2.5 frames at 30 fps, the same time as Bailando's 5 frames at 60 fps."""
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # BT.601 luma, as in OpenCV's RGB2GRAY


# A class, since a config may name any subclass; functions do as well where no config is read.
class MotionCurve(ABC):
    """How much moves from each frame of a clip to the next.

    Metrics whose curves are equal (`==`) share what is computed for a clip.
    """

    @abstractmethod
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames, uint8 RGB of shape (T, H, W, 3), to a curve of shape (T - 1,), 0 at rest."""

    def of_clip(self, clip: "ScoredClip") -> torch.Tensor:
        """The curve of a clip; a subclass may use more of it than its frames."""
        return self(clip.frames)

    def fingerprints(self) -> dict[str, str]:
        """Hashes of files that the curve depends on, by what they are for."""
        return {}

    def files_of(self, path: Path) -> Sequence[Path]:
        """Further files that the curve of the clip at ``path`` depends on."""
        return ()


def frame_difference(frames: torch.Tensor) -> torch.Tensor:
    """How much the picture changes from each frame to the next.

    Args:
        frames: uint8 RGB in [0, 255], shape (T, H, W, 3).

    Returns:
        Mean absolute difference of the grey frames i and i + 1, float64 in [0, 255], shape
        (T - 1,); empty for fewer than two frames.

    Raises:
        ValueError: If the frames have another shape.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"Frames of shape {tuple(frames.shape)} are not (T, H, W, 3); permute them first."
        )
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
    """Convolve a curve with a Gaussian, mirroring it at both ends.

    The ends are continued as ``d c b a | a b c d | d c b a`` and the kernel is cut at four sigma,
    the defaults of `scipy.ndimage.gaussian_filter1d`, which the Bailando code uses for this.

    Args:
        curve: Any length, shape (N,).
        sigma_samples: Standard deviation in samples; 0 returns the curve as it is.

    Returns:
        float64, shape (N,).
    """
    curve = curve.double()
    length = len(curve)
    radius = int(4.0 * sigma_samples + 0.5)
    if radius == 0 or length == 0:
        return curve
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma_samples) ** 2)
    kernel = kernel / kernel.sum()
    mirrored = torch.arange(-radius, length + radius) % (2 * length)
    mirrored = torch.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    return curve[mirrored].unfold(0, 2 * radius + 1, 1) @ kernel


def local_minima(curve: torch.Tensor) -> torch.Tensor:
    """Positions of the local minima of a curve.

    A sample below both neighbours counts. So does a pair of equal samples below both of its
    neighbours, at the middle of the pair: a stop that falls exactly on a frame is seen equally by
    the two frame pairs around it, and strict comparison would lose just these beats. A longer flat
    stretch is a rest without a moment of its own and does not count; neither do the two ends.

    Args:
        curve: Shape (N,). Values that differ by less than 1e-9 of the largest count as equal.

    Returns:
        Ascending positions in samples (whole or half), float64, shape (num_minima,).
    """
    curve = curve.double()
    if len(curve) < 3:
        return torch.zeros(0, dtype=torch.float64)
    tolerance = 1e-9 * float(curve.abs().max())
    steps = curve.diff()
    falls, rises = steps < -tolerance, steps > tolerance
    flat = ~falls & ~rises
    single = torch.nonzero(falls[:-1] & rises[1:]).flatten() + 1.0
    double = torch.nonzero(falls[:-2] & flat[1:-1] & rises[2:]).flatten() + 1.5
    return torch.cat([single.double(), double.double()]).sort().values


def rests(
    curve: torch.Tensor, *, fps: float, smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS
) -> torch.Tensor:
    """Times at which a motion curve has its local minima.

    The change between frames i and i + 1 happens around (i + 0.5) / fps.

    Args:
        curve: Motion from each frame to the next, shape (T - 1,).
        fps: Frame rate of the clip.
        smoothing_seconds: Standard deviation of the Gaussian over the curve; 0 is none.

    Returns:
        Ascending times in seconds from the first frame, float64, shape (num_beats,).

    Raises:
        ValueError: If the rate is not positive or the smoothing is negative.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise UserError(f"A clip at {fps} frames per second has no time axis; give its real rate.")
    if smoothing_seconds < 0:
        raise UserError(f"smoothing_seconds is {smoothing_seconds}; it must be 0 or more.")
    smoothed = gaussian_smoothed(curve, sigma_samples=smoothing_seconds * fps)
    return (local_minima(smoothed) + 0.5) / fps


def kinematic_beats(
    frames: torch.Tensor,
    *,
    fps: float,
    smoothing_seconds: float = DEFAULT_SMOOTHING_SECONDS,
    motion: Callable[[torch.Tensor], torch.Tensor] = frame_difference,
) -> torch.Tensor:
    """Times at which the motion of a clip comes to a local rest: `rests` of its motion curve.

    Args:
        frames: uint8 RGB, shape (T, H, W, 3).
        fps: Frame rate of the clip.
        smoothing_seconds: As in `rests`.
        motion: What is smoothed and searched for minima.

    Returns:
        Ascending times in seconds from the first frame, float64, shape (num_beats,).

    Raises:
        ValueError: If the rate is not positive, the smoothing is negative or the frames have
            another shape.
    """
    return rests(motion(frames), fps=fps, smoothing_seconds=smoothing_seconds)
