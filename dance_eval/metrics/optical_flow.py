"""Optical flow as a motion curve: how far the picture's points move from frame to frame.

Farneback's dense flow (2003) with the settings of AV-Align (Yariv et al. 2023, arXiv 2309.16429,
`av_align.py`). OpenCV computes it and is optional: ``pip install '.[eval]'``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.motion import require_frames
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_number

# Pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags.
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)


class MissingOpenCVError(UserError):
    """OpenCV is not installed. The message is one sentence."""


def load_cv2() -> Any:
    """The module ``cv2``; `MissingOpenCVError` if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise MissingOpenCVError(
            "Optical flow needs OpenCV, which is not installed; run `pip install '.[eval]'`, or "
            "measure motion by the difference of frames."
        ) from error
    return cv2


def flow_fields(frames: torch.Tensor, *, short_side: int | None = 240) -> np.ndarray:
    """Farneback flow between neighbouring frames, uint8 RGB in [0, 255], shape (T, H, W, 3).

    Grey frames whose shorter side is longer than ``short_side`` are scaled down to it first, by
    areas; 240 makes 480x848 into 240x424, None computes at full size. float32, shape
    (T - 1, h, w, 2), x before y, in pixels of the frames that were given.
    """
    require_frames(frames)
    cv2 = load_cv2()
    height, width = frames.shape[1:3]
    shrink = 1.0 if short_side is None else min(1.0, short_side / min(height, width))
    h, w = max(round(height * shrink), 1), max(round(width * shrink), 1)
    fields = np.zeros((max(len(frames) - 1, 0), h, w, 2), np.float32)
    previous = None
    for index, frame in enumerate(frames.numpy()):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if (h, w) != (height, width):
            grey = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)
        if previous is not None:
            flow = cv2.calcOpticalFlowFarneback(previous, grey, None, *FARNEBACK)
            np.multiply(flow, np.array([width / w, height / h], np.float32), out=fields[index - 1])
        previous = grey
    return fields


def mean_magnitude(fields: np.ndarray) -> torch.Tensor:
    """Mean length of the vectors of each field, AV-Align's curve: (N, h, w, 2) to float64 (N,)."""
    # Field by field: all lengths at once would take as much memory as the fields.
    lengths = [np.hypot(field[..., 0], field[..., 1]).mean(dtype=np.float64) for field in fields]
    return torch.tensor(lengths, dtype=torch.float64)


def magnitude_without_camera(fields: np.ndarray) -> torch.Tensor:
    """Mean length of the vectors after the camera's motion is taken out.

    The camera is the median vector of each field, as if it only panned. What is left is averaged
    over the moving region: the points that, over the whole clip, move more than the average point
    does. A dancer who fills a tenth of the picture then counts as much as one who fills half.
    Takes shape (N, h, w, 2) to float64 (N,), 0 throughout where only the camera moves.
    """
    lengths = np.zeros(fields.shape[:3], np.float32)
    for index, field in enumerate(fields):
        rest = field - np.median(field.reshape(-1, 2), axis=0)
        lengths[index] = np.hypot(rest[..., 0], rest[..., 1])
    if not len(fields):
        return torch.zeros(0, dtype=torch.float64)
    by_point = lengths.mean(axis=0, dtype=np.float64)
    moving = by_point > by_point.mean()
    curve = [field[moving].mean(dtype=np.float64) if moving.any() else 0.0 for field in lengths]
    return torch.tensor(curve, dtype=torch.float64)


@dataclass(frozen=True)
class OpticalFlow(MotionCurve):
    """Mean length of Farneback's optical flow, for any metric that takes a motion curve.

    Args:
        short_side: As in `flow_fields`: 240 is 424x240 for clips of 480x848, four times as fast as
            full size (None). Lengths are in pixels of the clip's own size either way.
        remove_camera: Take out what the whole picture does, see `magnitude_without_camera`. For
            moving cameras, such as AIST's c10 and videos from the wild.
    """

    short_side: int | None = 240
    remove_camera: bool = False

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("short_side", self.short_side, at_least=1, hint=" px, or null for full size")
        load_cv2()  # now and not at the first clip

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Pixels per frame from each frame to the next, float64, shape (T - 1,)."""
        return self._curve(flow_fields(frames, short_side=self.short_side))

    def of_clip(self, clip: ScoredClip) -> torch.Tensor:
        """The same of a clip; the flow is shared by curves that differ in the camera only."""
        side = self.short_side
        key = ("flow", side)
        return self._curve(clip.remembered(key, lambda: flow_fields(clip.frames, short_side=side)))

    def _curve(self, fields: np.ndarray) -> torch.Tensor:
        return magnitude_without_camera(fields) if self.remove_camera else mean_magnitude(fields)
