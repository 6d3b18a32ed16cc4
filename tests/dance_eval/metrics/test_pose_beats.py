"""Beats of joints by published definitions, against the code that they come from, written anew."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import argrelextrema

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.joint_track import JointTrack, longest_stretch
from dance_eval.metrics.pose_beats import (
    DEFINITIONS,
    PoseBeats,
    definition_rows,
    pose_beats,
    speed_curve,
)
from dance_eval.metrics.skeletons import COCO17
from musicinfuser.joint_files import Joints, read_people
from musicinfuser.keyed_random import generator

FPS = 60.0


def wandering(num_frames=300, num_joints=17, dimensions=2, seed=0):
    """Joints that swing at several frequencies, no two alike."""
    stream = generator(seed, 0, "test joints")
    times = torch.arange(num_frames)[:, None, None] / FPS
    hertz = 0.5 + 2 * torch.rand(num_joints, dimensions, generator=stream)
    phase = 6 * torch.rand(num_joints, dimensions, generator=stream)
    home = 300 * torch.rand(num_joints, dimensions, generator=stream)
    return (home + 30 * torch.sin(6.2832 * hertz * times + phase)).double()[None]


def mint_beats(places):
    """AIST++: summed speeds with a first one of 0, the least of ten frames to both sides."""
    steps = np.zeros(places.shape[:2])
    steps[1:] = np.sqrt(((places[1:] - places[:-1]) ** 2).sum(axis=2))
    return argrelextrema(steps.sum(axis=1), np.less, order=10)[0]


def bailando_beats(places):
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=2).mean(axis=1)
    return argrelextrema(gaussian_filter1d(speeds, 5), np.less)[0]


@pytest.mark.parametrize(
    ("name", "reference"), [("aist++", mint_beats), ("bailando", bailando_beats)]
)
def test_beats_are_the_frames_that_the_authors_code_finds(name, reference):
    for seed in range(4):
        places = wandering(seed=seed, num_joints=24, dimensions=3)
        expected = reference(places[0].numpy())
        found = pose_beats(Joints(places), DEFINITIONS[name], fps=FPS) * FPS
        assert len(expected) > 2
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def score_by_hand(name, beats, music):
    """The three averages at 60 fps in frames, beat by beat."""
    if name == "aist++":
        return np.mean([np.exp(-(np.min(np.abs(music - b)) ** 2) / 18) for b in beats])
    if name in ("bailando", "x_dancer"):
        return np.mean([np.exp(-np.min((beats - m) ** 2) / 2 / 9) for m in music])
    return np.mean([np.min(np.abs(beats - m)) <= 6 for m in music])


def clip_of(folder, joints, *, beats, **more):
    folder.mkdir(exist_ok=True)
    (folder / "clip.json").write_text(json.dumps({"joints": joints.tolist(), **more}))
    return ScoredClip(
        frames=torch.zeros(joints.shape[1], 4, 4, 3, dtype=torch.uint8), fps=FPS, waveform=None,
        rate_hz=16000, name="clip", seed=0, beats_seconds=torch.tensor(beats).double(),
        path=folder / "clip.mp4",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["aist++", "bailando", "mbcr"])
def test_scores_are_those_of_a_slow_loop(tmp_path, name):
    places = wandering(seed=7)
    music = np.arange(0.1, 5, 0.47)
    clip = clip_of(tmp_path, places, beats=music, names=COCO17)
    values = PoseBeats(definition=name, num_shifts=50).score_clip(clip)
    found = pose_beats(Joints(places, COCO17), DEFINITIONS[name], fps=FPS).numpy()
    expected = score_by_hand(name, np.round(found * FPS, 6), music * FPS)
    assert values["score"] == pytest.approx(expected, abs=1e-6)
    assert 0 < values["chance"] < 1 and values["share_scored"] == 1


def test_the_definitions_differ_on_one_dance(tmp_path):
    """Which is why their values do not compare."""
    clip = clip_of(tmp_path, wandering(seed=3), beats=np.arange(0.2, 5, 0.5), names=COCO17)
    scores = {
        name: PoseBeats(definition=name, num_shifts=20).score_clip(clip)["score"]
        for name in DEFINITIONS
    }
    assert len({round(score, 3) for score in scores.values()}) >= 5
    assert [row["definition"] for row in definition_rows()] == list(DEFINITIONS)


def test_a_camera_that_zooms_changes_speeds_in_torsos_little():
    """A dance at even speed that grows and shrinks in the picture."""
    frames = torch.arange(240)[:, None, None]
    home = 10 * torch.rand(1, 17, 2, generator=generator(1, 0, "home"))
    spin = 20 * torch.cat([(frames / 15).cos(), (frames / 15).sin()], dim=-1)
    zoom = 1 + 0.4 * torch.sin(frames / 40)
    joints = Joints(((home + spin) * zoom).double()[None], COCO17)
    plain, scaled = (
        speed_curve(joints, DEFINITIONS[name], fps=FPS) for name in ("bailando", "x_dancer")
    )
    assert scaled.std() / scaled.mean() < 0.35 * plain.std() / plain.mean()
    with pytest.raises(ValueError, match="names no joint 'left_shoulder'"):
        pose_beats(Joints(joints.places), DEFINITIONS["singdance"], fps=FPS)


def test_only_the_longest_stretch_with_the_dancer_is_scored(tmp_path):
    places = wandering(num_frames=300)
    seen = torch.ones(1, 300)
    seen[0, 100] = 0
    broken = places.clone()
    broken[0, 100:] += 500  # somebody else
    clip = clip_of(
        tmp_path / "a", broken, beats=np.arange(0.2, 5, 0.5), names=COCO17, seen=seen.tolist()
    )
    values = PoseBeats(definition="ours", num_shifts=20).score_clip(clip)
    assert values["share_scored"] == pytest.approx(199 / 300)
    # The same as a clip that is cut to that stretch, with its music.
    beats = np.arange(0.2, 5, 0.5) - 101 / FPS
    cut = clip_of(tmp_path / "b", broken[:, 101:], beats=beats[beats >= 0], names=COCO17)
    expected = PoseBeats(definition="ours", num_shifts=20).score_clip(cut)
    assert values["score"] == pytest.approx(expected["score"], abs=1e-9)
    with pytest.raises(ValueError, match="in 1 of 300 frames not everybody is seen"):
        clip.motion_curve(JointTrack())
    with pytest.raises(ValueError, match="followed for 199 frames at a time; at least 240"):
        PoseBeats(definition="ours", joints=JointTrack(least_seconds=4.0)).score_clip(clip)


def test_the_first_person_counts_alone_if_asked(tmp_path):
    places = torch.cat([wandering(seed=1), wandering(seed=2)])
    seen = torch.ones(2, 300)
    seen[1, :250] = 0
    clip = clip_of(tmp_path, places, beats=[1.0, 2.0], names=COCO17, seen=seen.tolist())
    first = PoseBeats(definition="ours", joints=JointTrack(people="first")).score_clip(clip)
    assert first["share_scored"] == 1
    with pytest.raises(ValueError, match="followed for 50 frames"):
        PoseBeats(definition="ours").score_clip(clip)


def test_files_of_joints_that_contradict_themselves_are_named(tmp_path):
    places = wandering(num_frames=5)
    path = tmp_path / "clip.json"
    path.write_text(json.dumps({"joints": places.tolist(), "names": ["nose"]}))
    with pytest.raises(ValueError, match=r"clip\.json: has 1 names for 17 joints"):
        read_people(path)
    path.write_text(json.dumps({"joints": places.tolist(), "seen": [[1, 1]]}))
    with pytest.raises(ValueError, match=r"seen has shape \(1, 2\)"):
        read_people(path)
    path.write_text(json.dumps({"joints": [], "seen": [], "num_frames": 5, "names": COCO17}))
    assert read_people(path).places.shape == (0, 5, 17, 2)
    with pytest.raises(ValueError, match="nobody was found"):
        PoseBeats(definition="ours").score_clip(clip_with(path, 5))
    with pytest.raises(ValueError, match="'dance'"):
        PoseBeats(definition="dance")
    with pytest.raises(ValueError, match="followed for 0 frames"):
        longest_stretch(Joints(places * torch.nan))


def clip_with(path, num_frames):
    return ScoredClip(
        frames=torch.zeros(num_frames, 4, 4, 3, dtype=torch.uint8), fps=FPS, waveform=None,
        rate_hz=16000, name="clip", seed=0, beats_seconds=torch.tensor([0.1]),
        path=path.with_suffix(".mp4"),
    )  # fmt: skip
