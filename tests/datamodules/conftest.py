import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.clips import CutSettings
from datamodules.cutting import ClipDataset
from musicinfuser.media.video_writing import write_video

FIRST_GREY = 50
AUDIO_RATE_HZ = 16000


def cut(kind: type[ClipDataset], root: Path, **options: Any) -> ClipDataset:
    """A dataset; what all sources share of the options becomes its `CutSettings`."""
    shared = {f.name: options.pop(f.name) for f in fields(CutSettings) if f.name in options}
    return kind(CutSettings(**shared), root, **options)


@pytest.fixture
def write_dance() -> Callable[..., Path]:
    """Write an mp4 whose grey level counts frames and whose tone grows louder with time."""

    def write(
        path: Path,
        *,
        seconds: float = 6.0,
        fps: int = 10,
        height: int = 36,
        width: int = 64,
        loudness: float | None = 0.9,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        num_frames = round(seconds * fps)
        grey = (FIRST_GREY + torch.arange(num_frames) % 200).to(torch.uint8)
        frames = grey[:, None, None, None].expand(num_frames, height, width, 3)
        if loudness is None:
            write_video(path, frames, fps=fps)
            return path
        time = torch.arange(round(seconds * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
        tone = loudness * time / seconds * torch.sin(2 * math.pi * 440 * time)
        write_video(path, frames, fps=fps, audio=tone, audio_rate_hz=AUDIO_RATE_HZ)
        return path

    return write
