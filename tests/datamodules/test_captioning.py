from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.captioning import read_or_skip, read_stills
from datamodules.clips import SkippedClip
from musicinfuser.media.errors import MediaError
from tests.datamodules.conftest import FIRST_GREY


def test_stills_lie_in_the_middle_of_equal_parts(
    tmp_path: Path, write_dance: Callable[..., Path]
) -> None:
    path = write_dance(tmp_path / "a.mp4", seconds=8.0)
    stills = read_stills(path, file="a.mp4", num_frames=4, longest_side=32)
    assert stills.seconds == pytest.approx((1.0, 3.0, 5.0, 7.0))
    assert stills.duration_seconds == pytest.approx(8.0)
    # Ten frames to the second, each one level lighter than the one before.
    levels = stills.frames.float().mean(dim=(1, 2, 3)).tolist()
    assert levels == pytest.approx([FIRST_GREY + 10 * s for s in (1, 3, 5, 7)], abs=1.5)
    assert stills.frames.shape == (4, 18, 32, 3)
    assert read_stills(path, file="", num_frames=1, longest_side=999).frames.shape == (1, 36, 64, 3)


def test_half_of_the_stills_are_enough(tmp_path: Path, write_dance: Callable[..., Path]) -> None:
    # The index lies at the front: what follows can break off anywhere.
    path = write_dance(tmp_path / "a.mp4", seconds=20.0, loudness=None)
    whole = path.read_bytes()
    options = {"file": "a.mp4", "num_frames": 8, "longest_side": 32}
    numbers = []
    for part in (1.0, 0.9, 0.75, 0.5):
        path.write_bytes(whole[: int(part * len(whole))])
        try:
            stills = read_stills(path, **options)
        except MediaError as error:
            assert "a.mp4: " in str(error)
            numbers.append(0)
        else:
            assert len(stills.seconds) == len(stills.frames)
            numbers.append(len(stills.frames))
    assert numbers[0] == 8 and numbers[-1] == 0
    assert numbers == sorted(numbers, reverse=True)
    assert any(4 <= number < 8 for number in numbers)


def test_a_video_that_takes_too_long_is_passed_on_with_the_reason(
    tmp_path: Path, write_dance: Callable[..., Path]
) -> None:
    path = write_dance(tmp_path / "a.mp4")
    options = {"num_frames": 2, "longest_side": 32, "time_limit_seconds": 1e-9}
    [video] = read_or_skip([path], root=tmp_path, **options)
    assert isinstance(video, SkippedClip)
    assert video.reason == (
        "cannot be read: was not read within 1e-09 s; a larger time_limit_seconds gives it more."
    )
