import pytest

from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import small_frames
from tests.media.conftest import read_numbers


def test_every_frame_comes_once_in_order_with_its_own_time(media):
    # Of variable rate, and not from zero on.
    times = [0.5 + k / 20 + 0.01 * (k % 3) for k in range(40)]
    path = media.write(times=times, options={"bf": "3"})
    found = list(small_frames(path, longest_side=64, time_limit_seconds=60))
    assert [seconds for seconds, _ in found] == pytest.approx([t - 0.5 for t in times], abs=1e-4)
    for number, (_, frame) in enumerate(found):
        assert frame.shape == (48, 64, 3)
        assert read_numbers(frame[None]) == [number]


def test_frames_are_shrunk_and_never_enlarged(media):
    path = media.write(times=[k / 30 for k in range(3)], width=128, height=96)
    sizes = {
        side: {tuple(frame.shape) for _, frame in small_frames(
            path, longest_side=side, time_limit_seconds=60
        )}
        for side in (32, 500)
    }  # fmt: skip
    assert sizes == {32: {(24, 32, 3)}, 500: {(96, 128, 3)}}


def test_a_bad_file_and_one_that_takes_too_long_are_refused(media, bad_file):
    with pytest.raises(MediaError, match=bad_file.name):
        list(small_frames(bad_file, longest_side=64, time_limit_seconds=60))
    path = media.write(times=[k / 30 for k in range(30)])
    with pytest.raises(MediaError, match="was not read within 1e-05 s"):
        list(small_frames(path, longest_side=64, time_limit_seconds=1e-5))
