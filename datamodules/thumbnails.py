"""One small picture of each clip of a cache, read from the video it was cut from."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datamodules.cut_settings import CROPS, crop_box
from datamodules.cutting import MIN_FILES_FOR_PROGRESS_BAR
from musicinfuser.media.errors import MediaError
from musicinfuser.media.latents import ClipHeader
from musicinfuser.media.video import probe_video, read_clip

LONGEST_SIDE_PX = 240
JPEG_QUALITY = 80
NUM_THREADS = 8
TIME_LIMIT_SECONDS = 60.0
"""For one picture; a page is not held up by one file."""

Picture = bytes | str
"""A JPEG file, or the sentence why there is none."""


def clip_picture(clip: ClipHeader) -> Picture:
    """The frame in the middle of a clip, cut as the clip was."""
    path = Path(clip.attributes.get("file", ""))
    crop = clip.attributes.get("crop")
    if crop not in CROPS or "start_seconds" not in clip.attributes:
        return "The clip does not say where it was cut."
    height, width = _fitted(*clip.size)
    middle_seconds = clip.recipe.num_frames // 2 / clip.recipe.fps
    return _picture(
        path,
        lambda: read_clip(
            path,
            start_seconds=float(clip.attributes["start_seconds"]) + middle_seconds,
            num_frames=1,
            height=height,
            width=width,
            crop=crop_box(probe_video(path), size=clip.size, crop=crop),  # type: ignore[arg-type]
            time_limit_seconds=TIME_LIMIT_SECONDS,
        ),
    )


def file_picture(path: Path) -> Picture:
    """The frame in the middle of a video, whole."""

    def read() -> Tensor:
        info = probe_video(path, time_limit_seconds=TIME_LIMIT_SECONDS)
        height, width = _fitted(info.height, info.width)
        return read_clip(
            path,
            start_seconds=info.duration_seconds / 2,
            num_frames=1,
            height=height,
            width=width,
            crop=None,
            time_limit_seconds=TIME_LIMIT_SECONDS,
        )

    return _picture(path, read)


def take_pictures(tasks: Sequence[Callable[[], Picture]]) -> list[Picture]:
    """Run several of the above at a time, in order, with a progress bar if there are many."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(lambda task: task(), tasks)
        is_short = len(tasks) < MIN_FILES_FOR_PROGRESS_BAR
        return list(tqdm(results, "thumbnails", len(tasks), disable=is_short))


def _picture(path: Path, read: Callable[[], Tensor]) -> Picture:
    if not path.is_file():
        return f"{path} is no longer there."
    try:
        frame = read()[0]
    except MediaError:
        return f"No frame of {path} can be read."
    file = io.BytesIO()
    Image.fromarray(frame.numpy()).save(file, format="JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _fitted(height: int, width: int) -> tuple[int, int]:
    scale = LONGEST_SIDE_PX / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
