"""Videos of people, re-timed so that they rest at known times."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from musicinfuser.errors import UserError
from musicinfuser.media.video import probe_video, read_clip

FPS = 30.0
NUM_FRAMES = 73
"""The paper's clips."""
HEIGHT = 120
SOURCE_SECONDS_PER_BEAT = 0.4


def read_small(video: Path) -> tuple[torch.Tensor, float]:
    """All frames of a video, `HEIGHT` px high, uint8 (N, H, W, 3), and their rate."""
    info = probe_video(video)
    fps = info.average_fps
    frames = read_clip(
        video,
        start_seconds=0.0,
        num_frames=int(info.duration_seconds * fps),
        height=HEIGHT,
        width=round(info.width * HEIGHT / info.height),
        fps=fps,
        crop=None,
    )
    return frames, fps


def retimed(
    frames: torch.Tensor, rests: NDArray[np.float64], *, fps: float, start: float
) -> torch.Tensor:
    """A clip that goes through a video and stands still for an instant at given times.

    From rest to rest it covers the same stretch of the video, slow at both ends; what comes between
    two frames is blended. ``start``, 0 to 1, says where in the video it begins, as far as there is
    room. uint8 (N, H, W, 3) to (NUM_FRAMES, H, W, 3); `UserError` for a video of under a second.
    """
    seconds = (len(frames) - 1) / fps
    if seconds < 1:
        raise UserError(f"a video of {seconds:.2f} s is too short to be re-timed; give a second.")
    clip = np.arange(NUM_FRAMES) / FPS
    place = np.interp(clip, rests, np.arange(len(rests)))
    phase = place - np.floor(place)
    eased = np.floor(place) + phase - np.sin(2 * np.pi * phase) / (2 * np.pi)
    stretch = min(SOURCE_SECONDS_PER_BEAT, seconds / float(np.ptp(eased)))
    covered = stretch * (eased - eased[0])
    at = (covered + start * max(seconds - covered[-1], 0.0)) * fps
    low = np.minimum(np.floor(at), len(frames) - 2).astype(int)
    share = torch.from_numpy(at - low).float()[:, None, None, None]
    both = frames[low].float() * (1 - share) + frames[low + 1].float() * share
    return both.round().clamp(0, 255).to(torch.uint8)
