import math

import pytest
import torch

from dance_eval.metrics.motion import (
    frame_difference,
    gaussian_smoothed,
    kinematic_beats,
    local_minima,
)
from tests.dancing_square import swinging_square


def frames_of_levels(*levels):
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 6, 3).clone()


def test_frame_difference_by_hand():
    assert frame_difference(frames_of_levels(10, 30, 25)).tolist() == pytest.approx([20, 5])
    half = frames_of_levels(0, 0)
    half[1, :, :3] = 100
    assert frame_difference(half).tolist() == pytest.approx([50])


def test_frame_difference_weighs_colours_as_bt601():
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        frames = frames_of_levels(0, 0)
        frames[1, ..., channel] = 100
        assert frame_difference(frames).item() == pytest.approx(100 * weight)


def test_frame_difference_does_not_wrap_around_uint8():
    assert frame_difference(frames_of_levels(255, 0, 255)).tolist() == pytest.approx([255, 255])


@pytest.mark.parametrize("num_frames", [0, 1])
def test_too_few_frames_have_no_motion(num_frames):
    assert frame_difference(torch.zeros(num_frames, 4, 4, 3, dtype=torch.uint8)).shape == (0,)


def test_frames_of_another_layout_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 3, 8, 8\)"):
        frame_difference(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("length", [1, 3, 7, 40])
def test_smoothing_agrees_with_a_plain_loop(length):
    curve = [math.sin(3.0 * i) + 0.1 * i for i in range(length)]
    sigma, radius = 2.5, 10

    def mirrored(i):
        while not 0 <= i < length:
            i = -1 - i if i < 0 else 2 * length - 1 - i
        return curve[i]

    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)]
    expected = [
        sum(w * mirrored(i + k) for w, k in zip(weights, range(-radius, radius + 1), strict=True))
        / sum(weights)
        for i in range(length)
    ]
    smoothed = gaussian_smoothed(torch.tensor(curve), sigma_samples=sigma)
    assert smoothed.tolist() == pytest.approx(expected, abs=1e-6)


def test_no_smoothing_leaves_the_curve():
    assert gaussian_smoothed(torch.tensor([1.0, 5.0, 2.0]), sigma_samples=0).tolist() == [1, 5, 2]


@pytest.mark.parametrize(
    ("curve", "positions"),
    [
        ([3, 1, 2], [1]),
        ([3, 1, 1, 2], [1.5]),
        ([3, 1, 1, 1, 2], []),
        ([3, 1, 1, 0, 2], [3]),
        ([3, 2, 2, 1, 1], []),
        ([1, 1, 2, 3], []),
        ([1, 2, 3], []),
        ([5, 1, 4, 2, 2, 6, 0, 1], [1, 3.5, 6]),
        ([2, 2, 2, 2], []),
        ([1, 0], []),
        ([], []),
    ],
)
def test_local_minima_by_hand(curve, positions):
    assert local_minima(torch.tensor(curve, dtype=torch.float32)).tolist() == positions


def test_rounding_does_not_break_a_plateau():
    curve = torch.tensor([3.0, 1.0, 1.0 + 1e-15, 2.0], dtype=torch.float64)
    assert local_minima(curve).tolist() == [1.5]


@pytest.mark.parametrize("phase_seconds", [0.2, 0.31])
@pytest.mark.parametrize("fps", [24.0, 30.0])
def test_kinematic_beats_are_where_the_square_rests(fps, phase_seconds):
    frames = swinging_square(
        num_frames=int(3 * fps), fps=fps, period_seconds=0.5, phase_seconds=phase_seconds
    )
    beats = kinematic_beats(frame_difference(frames), fps=fps)
    rests = [phase_seconds + 0.5 * k for k in range(6)]
    assert len(beats) == 6
    assert beats.tolist() == pytest.approx(rests, abs=0.5 / fps + 1e-6)


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_smoothing_is_given_in_seconds(fps):
    # Motion that ebbs twice a second under a ripple of 7.5 Hz. Smoothing by 1/12 s removes the
    # ripple at any frame rate; by 2.5 frames it would do so at 30 fps only.
    times = torch.arange(int(3 * fps)) / fps
    motion = 90 + 40 * torch.cos(4 * math.pi * times) + 40 * torch.cos(15 * math.pi * times)
    levels = 128 + motion / 2 * (-1) ** torch.arange(len(times))
    frames = frames_of_levels(*levels.round().int().tolist())
    assert len(kinematic_beats(frame_difference(frames), fps=fps, smoothing_seconds=0.0)) > 15
    beats = kinematic_beats(frame_difference(frames), fps=fps)
    assert beats.tolist() == pytest.approx([0.25 + 0.5 * k for k in range(6)], abs=1 / fps)


def test_a_change_is_dated_between_its_two_frames():
    frames = frames_of_levels(10, 30, 35, 60, 60, 60, 80)
    beats = kinematic_beats(
        frame_difference(frames), fps=10.0, smoothing_seconds=0.0, minima="sampled"
    )
    # The smallest change is from frame 1 to frame 2; frames 3 to 5 are two equal changes of zero.
    assert beats.tolist() == pytest.approx([0.15, 0.4])


def test_a_still_picture_has_no_beats():
    assert kinematic_beats(frame_difference(frames_of_levels(*[80] * 30)), fps=30.0).tolist() == []


@pytest.mark.parametrize("arguments", [{"fps": 0.0}, {"fps": 30.0, "smoothing_seconds": -0.1}])
def test_senseless_settings_are_refused(arguments):
    with pytest.raises(ValueError, match="frames per second|smoothing_seconds"):
        kinematic_beats(frame_difference(frames_of_levels(1, 2, 3)), **arguments)
