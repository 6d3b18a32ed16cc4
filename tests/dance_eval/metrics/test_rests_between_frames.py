"""Rests of a dance whose times are known below a frame, from its joints and from its pixels."""

import functools
import math

import numpy as np
import pytest
import torch

from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.joint_track import joint_speed
from dance_eval.metrics.motion import frame_difference, kinematic_beats, local_minima
from small_world.generator.moves import Manner, choreograph
from small_world.generator.recordings import Actor, film, still_camera
from small_world.generator.wardrobe import aist_looks, studio

FPS, NUM_FRAMES, PERIOD = 30.0, 120, 0.56
PHASES = (0.30, 0.305, 0.31, 0.315, 0.32, 0.325, 0.33)


@functools.cache
def dance(phase_seconds):
    """A dancer who rests at phase + k * PERIOD: frames and joints."""
    beats = 8 + (np.arange(NUM_FRAMES) / FPS - phase_seconds) / PERIOD
    manner = Manner(amplitude=1.0, is_mirrored=False, pose_jitter=0.8, is_advanced=False)
    poses = choreograph("LH", beats, manner, np.random.default_rng(0))
    actor = Actor(aist_looks("d04", height=0.75), poses, 0.0, 0.4)
    frames, joints = film(
        [actor], studio(0.4), still_camera(NUM_FRAMES), yaw_degrees=0.0, height=64, width=64
    )
    return torch.from_numpy(frames), torch.from_numpy(joints)


def rests(phase_seconds):
    return np.arange(phase_seconds, NUM_FRAMES / FPS, PERIOD)


def curve_of(kind, phase_seconds):
    frames, joints = dance(phase_seconds)
    return joint_speed(joints) if kind == "joints" else frame_difference(frames)


class GivenCurve:
    in_workers = True

    def __init__(self, curve):
        self.curve = curve

    def fingerprints(self):
        return {}

    def of_clip(self, clip):
        return self.curve


def score(kind, phase_seconds, beats, **settings):
    clip = ScoredClip(
        frames=dance(phase_seconds)[0],
        fps=FPS,
        waveform=None,
        rate_hz=16000,
        name="clip",
        seed=0,
        beats_seconds=torch.from_numpy(beats),
    )
    motion = GivenCurve(curve_of(kind, phase_seconds))
    return BeatAlignment(motion=motion, **settings).score_clip(clip)


@pytest.mark.parametrize("kind", ["joints", "pixels"])
def test_rests_are_found_between_frames(kind):
    worst = {}
    for minima in ("interpolated", "sampled"):
        gaps = []
        for phase in PHASES:
            found = kinematic_beats(curve_of(kind, phase), fps=FPS, minima=minima)
            assert len(found) == len(rests(phase))
            gaps.append(np.abs(found.numpy() - rests(phase)).max())
        worst[minima] = max(gaps)
    assert worst["interpolated"] < 0.008
    assert worst["sampled"] > 0.012


@pytest.mark.parametrize("average_over", ["kinematic", "music"])
@pytest.mark.parametrize("kind", ["joints", "pixels"])
def test_late_music_scores_as_the_kernel_says(kind, average_over):
    phase, sigma = 0.213, 0.05
    chance = None
    for lag in np.arange(0, 0.2501, 0.025):
        beats = rests(phase) + lag
        values = score(kind, phase, beats[beats < NUM_FRAMES / FPS], average_over=average_over)
        # The last rest has no beat near where its beat is late beyond the end of the clip.
        pairs = len(beats[beats < NUM_FRAMES / FPS])
        expected = math.exp(-(lag**2) / (2 * sigma**2))
        if average_over == "kinematic":
            expected *= pairs / len(beats)
        assert values["score"] == pytest.approx(expected, abs=0.05)
        chance = values["chance"]
    assert values["score"] < 0.05 < chance


def test_a_parabola_has_its_vertex_between_samples():
    for vertex in (2.6, 3.0, 3.25, 3.4999):
        curve = (torch.arange(8, dtype=torch.float64) - vertex) ** 2
        assert local_minima(curve, minima="interpolated").tolist() == pytest.approx([vertex])
        assert local_minima(curve).tolist() == [round(vertex)]
    pair = torch.tensor([3.0, 1, 1, 2])
    assert local_minima(pair, minima="interpolated").tolist() == [1.5]


def test_published_definitions_are_one_setting_away():
    at_frames = score("joints", 0.325, rests(0.325), minima="sampled")["score"]
    between = score("joints", 0.325, rests(0.325))["score"]
    assert between > 0.99 > at_frames
    with pytest.raises(ValueError, match="minima"):
        BeatAlignment(minima="frames")
