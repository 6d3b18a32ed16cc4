import math
import sys

import cv2
import numpy as np
import pytest
import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.optical_flow import (
    MissingOpenCVError,
    OpticalFlow,
    flow_fields,
    magnitude_without_camera,
    mean_magnitude,
)


def texture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def panning(*, num_frames=4, pixels=2, height=96, width=128):
    """A window that moves over a texture, so that the picture moves left."""
    wide = texture(height, width + pixels * num_frames)
    return torch.stack(
        [
            torch.from_numpy(wide[:, k * pixels : k * pixels + width].copy())
            for k in range(num_frames)
        ]
    )


def dancing(steps, *, pan=0):
    """A patch over a texture that moves by so many pixels each time, before a moving camera."""
    wide, patch = texture(96, 128 + pan * len(steps) + pan), texture(40, 40, seed=1)
    left, frames = 20, []
    for index, step in enumerate([0, *steps]):
        left += step
        frame = wide[:, index * pan : index * pan + 128].copy()
        frame[30:70, left : left + 40] = patch
        frames.append(torch.from_numpy(frame))
    return torch.stack(frames)


def test_against_a_plain_loop():
    frames = panning(height=24, width=32, pixels=1, num_frames=3)
    expected = []
    greys = [cv2.cvtColor(frame.numpy(), cv2.COLOR_RGB2GRAY) for frame in frames]
    for first, second in zip(greys, greys[1:], strict=False):
        flow = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        total = 0.0
        for row in flow.tolist():
            for x, y in row:
                total += math.sqrt(x * x + y * y)
        expected.append(total / (24 * 32))
    assert OpticalFlow()(frames).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_pan_is_measured_in_pixels(pixels):
    curve = OpticalFlow()(panning(pixels=pixels))
    assert curve.shape == (3,) and curve.dtype == torch.float64
    assert curve.tolist() == pytest.approx([pixels] * 3, rel=0.15)


def test_half_size_gives_pixels_of_the_full_size():
    frames = panning(pixels=4, height=192, width=256)
    small = flow_fields(frames, short_side=96)
    assert small.shape == (3, 96, 128, 2)
    assert mean_magnitude(small).tolist() == pytest.approx([4] * 3, rel=0.15)
    assert flow_fields(frames, short_side=None).shape == (3, 192, 256, 2)
    upright = frames.transpose(1, 2)
    assert flow_fields(upright, short_side=96).shape == (3, 128, 96, 2)
    # Frames that are small already are taken as they are.
    assert flow_fields(frames, short_side=480).shape == (3, 192, 256, 2)


def test_the_camera_is_taken_out_and_the_dancer_is_left():
    still, moving = dancing([3, 0, 3]), dancing([3, 0, 3], pan=2)
    flow, without = OpticalFlow(), OpticalFlow(remove_camera=True)
    assert flow(moving)[1] > 1.2
    assert without(panning(pixels=3)).max() < 0.3 * flow(panning(pixels=3)).min()
    for frames in (still, moving):
        curve = without(frames)
        assert curve[0] > 1.0 and curve[2] > 1.0
        # Against the moving camera a resting dancer moves as fast as the camera.
        assert curve[1] < (0.3 if frames is still else 2.5)


def test_without_camera_against_a_plain_loop():
    fields = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    lengths = []
    for field in fields.astype(float):
        points = [point for row in field for point in row]
        middle = [sorted(p[axis] for p in points) for axis in (0, 1)]
        median = [(axis[14] + axis[15]) / 2 for axis in middle]
        lengths.append([math.hypot(p[0] - median[0], p[1] - median[1]) for p in points])
    by_point = [sum(column) / 4 for column in zip(*lengths, strict=True)]
    region = [i for i, mean in enumerate(by_point) if mean > sum(by_point) / 30]
    expected = [sum(row[i] for i in region) / len(region) for row in lengths]
    assert magnitude_without_camera(fields).tolist() == pytest.approx(expected, rel=1e-5)
    assert magnitude_without_camera(np.ones_like(fields)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("remove_camera", [False, True])
@pytest.mark.parametrize("num_frames", [0, 1])
def test_too_few_frames_have_no_motion(num_frames, remove_camera):
    frames = torch.zeros(num_frames, 32, 32, 3, dtype=torch.uint8)
    assert OpticalFlow(remove_camera=remove_camera)(frames).shape == (0,)


def test_equal_curves_are_computed_once(monkeypatch):
    calls = []
    real = cv2.calcOpticalFlowFarneback
    monkeypatch.setattr(
        cv2, "calcOpticalFlowFarneback", lambda *args: (calls.append(1), real(*args))[1]
    )
    clip = ScoredClip(panning(), 30.0, None, 16000, name="clip", seed=0)
    first = clip.motion_curve(OpticalFlow(short_side=64))
    assert clip.motion_curve(OpticalFlow(short_side=64)) is first
    without = clip.motion_curve(OpticalFlow(short_side=64, remove_camera=True))
    assert len(calls) == 3 and not torch.equal(without, first)
    clip.motion_curve(OpticalFlow(short_side=32))
    assert len(calls) == 6


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match=r"\(4, 3, 8, 8\)"):
        OpticalFlow()(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="short_side is 0"):
        OpticalFlow(short_side=0)


def test_a_missing_opencv_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingOpenCVError, match=r"needs OpenCV.*pip install '\.\[eval\]'"):
        OpticalFlow()
