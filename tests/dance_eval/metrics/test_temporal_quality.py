"""Flickering and smoothness, against loops and another way to interpolate."""

import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.optical_flow import flow_fields
from dance_eval.metrics.temporal_quality import (
    FlowSmoothness,
    MotionSmoothness,
    TemporalFlickering,
    flickering,
    flow_smoothness,
    middle_frames,
)
from tests.small_encoders import noise

AMT = """
import sys, numpy as np
from dance_eval.workers.serving import serve

def load(weights):
    def answer(request):
        frames = np.load(request["frames"], allow_pickle=False)
        return {"score": VALUE}
    return answer

serve(load, weights=None)
"""


def clip_of(frames, fps=30.0):
    return ScoredClip(frames=frames, fps=fps, waveform=None, rate_hz=1, name="a.mp4", seed=0)


def sliding(num_frames=9, *, step=3.0, height=80, width=100):
    """A smooth picture that moves to the right at even speed."""
    wide = gaussian_filter(np.random.default_rng(0).normal(size=(height, width + 60)), 3)
    wide = (wide - wide.min()) / (wide.max() - wide.min()) * 255
    rows = np.arange(height)[:, None] + np.zeros((1, width))
    frames = []
    for t in range(num_frames):
        columns = np.arange(width)[None] + np.zeros((height, 1)) + 40 - step * t
        frames.append(map_coordinates(wide, [rows, columns], order=1))
    grey = torch.tensor(np.stack(frames)).round().to(torch.uint8)
    return grey[..., None].expand(-1, -1, -1, 3).contiguous()


def test_flickering_against_a_plain_loop():
    frames = noise(4, 6, 7)
    gaps = []
    for t in range(3):
        one, other = frames[t].numpy().astype(int), frames[t + 1].numpy().astype(int)
        gaps.append(sum(abs(int(a) - int(b)) for a, b in zip(one.flat, other.flat, strict=True)))
    expected = (255 - sum(gaps) / 3 / (6 * 7 * 3)) / 255
    assert flickering(frames) == pytest.approx(expected, abs=1e-7)
    assert flickering(frames[:1].expand(3, -1, -1, -1)) == 1
    with pytest.raises(ValueError, match="1 frames are too few"):
        flickering(frames[:1])


def test_a_moving_picture_flickers_more_when_its_frames_are_shuffled():
    values = TemporalFlickering().score_clip(clip_of(sliding(12)))
    assert values["shuffled"] < values["score"] < 1


def test_the_middle_of_an_even_motion_is_found_and_a_jump_is_not():
    frames = sliding(9)
    values = FlowSmoothness(short_side=None).score_clip(clip_of(frames))
    assert values["score"] > 0.985 > flickering(frames)
    assert values["shuffled"] < values["score"] - 0.01
    jumpy = frames.clone()
    jumpy[5] = frames[0]
    assert flow_smoothness(jumpy, short_side=None) < values["score"] - 0.005


def test_middles_against_scipys_interpolation():
    frames = sliding(3, height=60, width=70)
    found = middle_frames(frames, short_side=None)
    for index, field in enumerate(flow_fields(frames, short_side=None)):
        rows, columns = np.mgrid[:60, :70].astype(float)
        half = field.astype(float) / 2
        sides = []
        for picture, sign in ((frames[index], -1), (frames[index + 1], 1)):
            places = [rows + sign * half[..., 1], columns + sign * half[..., 0]]
            plane = picture[..., 0].numpy().astype(float)
            sides.append(map_coordinates(plane, places, order=1, mode="nearest"))
        expected = (sides[0] + sides[1]) / 2
        # OpenCV places samples on a grid of 1/32 px.
        assert np.abs(found[index, ..., 0] - expected).max() < 1.5
        assert np.abs(found[index, ..., 0] - expected).mean() < 0.1
    guess = np.rint(found[:0])
    assert guess.shape == (0, 60, 70, 3)
    with pytest.raises(ValueError, match="2 frames are too few"):
        flow_smoothness(frames[:2])


def smoothness_worker(tmp_path, value):
    (tmp_path / "amt.py").write_text(AMT.replace("VALUE", value))
    (tmp_path / "amt-s.pth").write_text("")
    run = f"import runpy; runpy.run_path({str(tmp_path / 'amt.py')!r})"
    return {"command": [sys.executable, "-c", run], "weights": str(tmp_path / "amt-s.pth")}


def test_vbenchs_own_smoothness_is_asked_of_a_program_of_another_environment(tmp_path):
    metric = MotionSmoothness(**smoothness_worker(tmp_path, "float(frames[0].mean()) / 255"))
    frames = noise(4, 8, 8)
    values = metric.score_clip(clip_of(frames))
    assert values["score"] == pytest.approx(float(frames[0].double().mean()) / 255)
    assert values["shuffled"] != values["score"]
    assert metric.fingerprints()["weights"]
    wrong = MotionSmoothness(**smoothness_worker(tmp_path, "'much'"))
    with pytest.raises(ValueError, match="gave 'much' for a score"):
        wrong.score_clip(clip_of(frames))
    with pytest.raises(ValueError, match=r"no\.pth, which does not exist; how to get them"):
        MotionSmoothness(command=["x"], weights="no.pth")
