"""Stored pixels that are not square, as in old camcorders' files, are seen as players show them."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import CropBox, centre_crop, probe_video, read_clip

TIMES = [k / 30 for k in range(6)]


def ramp(index: int, width: int, height: int) -> np.ndarray:
    """Grey grows from left to right: 2 a column."""
    columns = np.arange(width, dtype=np.uint8) * 2 + 40
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).copy()


def wide_pixels(
    media: SimpleNamespace, pixel_aspect: Fraction = Fraction(2), name: str = "clip.mp4"
) -> Path:
    options = {"options": {"crf": "1"}, "pix_fmt": "yuv444p", "pixel_aspect": pixel_aspect}
    return media.write(name, times=TIMES, draw=ramp, **options)


def read(path: Path, height: int, width: int, crop: CropBox | None = None) -> torch.Tensor:
    [frame] = read_clip(
        path, start_seconds=0.0, num_frames=1, height=height, width=width, crop=crop
    )
    return frame[..., 1].float()


@pytest.mark.parametrize(("pixel_aspect", "width"), [(2, 128), (Fraction(8, 9), 57), (1, 64)])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_the_size_is_the_one_that_is_shown(media, name: str, pixel_aspect, width: int) -> None:
    info = probe_video(wide_pixels(media, pixel_aspect, name))
    assert (info.width, info.height) == (width, 48)


def test_a_box_is_cut_from_what_is_shown(media) -> None:
    path = wide_pixels(media)
    box = centre_crop(128, 48, target_height=48, target_width=64)
    assert (box.left, box.width) == (32, 64)
    # Stored columns 16 to 47 fill it.
    assert read(path, 48, 64, box).mean() == pytest.approx(40 + 2 * 31.5, abs=2)
    assert read(path, 48, 32, box)[0].tolist() == pytest.approx(
        [40 + 2 * column for column in range(16, 48)], abs=3
    )
    assert read(path, 48, 128).mean() == pytest.approx(40 + 2 * 31.5, abs=2)
    with pytest.raises(MediaError, match="does not lie inside its frame of 128x48"):
        read(path, 48, 64, CropBox(100, 0, 40, 48))


def test_wide_pixels_of_a_turned_phone_are_tall(media) -> None:
    path = wide_pixels(media)
    media.rotate_mp4(path, 90, 64, 48)
    info = probe_video(path)
    assert (info.width, info.height, info.rotation_degrees) == (48, 128, 270)
    upper = read(path, 32, 48, CropBox(0, 0, 48, 64))
    # Turned clockwise, the left half of the stored picture is above.
    assert upper.mean() == pytest.approx(40 + 2 * 15.5, abs=2)
    assert upper[0].mean() < upper[-1].mean()
