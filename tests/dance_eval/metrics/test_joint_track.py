import json
import math

import pytest
import torch

from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.joint_track import JointTrack, joint_speed
from musicinfuser.joint_files import read_joints, read_people


def clip_at(path, *, num_frames=60, beats=(0.5, 1.0, 1.5)):
    return ScoredClip(
        frames=torch.zeros(num_frames, 4, 4, 3, dtype=torch.uint8), fps=30.0, waveform=None,
        rate_hz=16000, name=path.name, seed=0, beats_seconds=torch.tensor(beats), path=path,
    )  # fmt: skip


def swinging_joints(num_frames=60):
    """Two joints that rest every half second, between frames 14 and 15 at first."""
    places = [math.cos(2 * math.pi * (k - 14.5) / 30) for k in range(num_frames)]
    return [[[x, 0.5], [2 * x, 0.1]] for x in places]


def write(path, joints):
    path.write_text(json.dumps({"joints": joints, "beats_seconds": [0.1]}))


def test_speed_by_hand():
    joints = torch.tensor([[[[0, 0], [1, 1]], [[3, 4], [1, 1]], [[3, 4], [1, 3]]]])
    assert joint_speed(joints).tolist() == [2.5, 1.0]
    two = torch.cat([joints, torch.zeros_like(joints)])
    assert joint_speed(two).tolist() == [1.25, 0.5]


def test_a_dance_is_scored_by_its_joints_alone(tmp_path):
    write(tmp_path / "clip.json", swinging_joints())
    values = BeatAlignment(motion=JointTrack()).score_clip(clip_at(tmp_path / "clip.mp4"))
    assert values["num_kinematic_beats"] >= 3
    assert values["score"] > 0.7
    assert BeatAlignment().score_clip(clip_at(tmp_path / "clip.mp4"))["score"] == 0


def test_joints_may_lie_elsewhere_and_of_several_dancers(tmp_path):
    (tmp_path / "truth").mkdir()
    write(tmp_path / "truth" / "clip.json", [swinging_joints(), swinging_joints()])
    track = JointTrack(str(tmp_path / "truth"))
    path = tmp_path / "videos" / "clip.mp4"
    assert list(BeatAlignment(motion=track).files_of(path)) == [tmp_path / "truth" / "clip.json"]
    assert track.of_clip(clip_at(path)).shape == (59,)
    assert read_joints(tmp_path / "truth" / "clip.json").shape == (2, 60, 2, 2)


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"beats": 1}', '{"joints": [[1, 2]]}', '{"joints": [[[[[1, 2]]]]]}',
     '{"joints": [[[1, 2, 3, 4]]]}', '{"joints": [[[NaN, 1]]]}', '{"joints": [[["x", 1]]]}',
     '{"joints": [[[1, 2], [3]]]}'],
)  # fmt: skip
def test_files_of_another_kind_are_named(tmp_path, text):
    (tmp_path / "clip.json").write_text(text)
    with pytest.raises(ValueError, match=r"clip\.json: .*joints"):
        JointTrack().of_clip(clip_at(tmp_path / "clip.mp4"))


def test_joints_of_another_length_or_none_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"clip\.json"):
        JointTrack().of_clip(clip_at(tmp_path / "clip.mp4"))
    (tmp_path / "clip.json").write_text("{}")  # `predict` keeps other things here
    write(tmp_path / "clip.joints.json", swinging_joints())
    assert len(JointTrack().of_clip(clip_at(tmp_path / "clip.mp4"))) == 59
    (tmp_path / "clip.joints.json").unlink()
    write(tmp_path / "clip.json", swinging_joints(50))
    with pytest.raises(ValueError, match="50 frames, but the clip has 60"):
        JointTrack().of_clip(clip_at(tmp_path / "clip.mp4"))
    with pytest.raises(ValueError, match="clip on disk"):
        JointTrack()(torch.zeros(3, 4, 4, 3, dtype=torch.uint8))


def test_truth_of_the_small_world_names_its_joints(tmp_path):
    content = {"joints": swinging_joints(), "joint_names": ["left_hip", "right_hip"]}
    (tmp_path / "clip.json").write_text(json.dumps(content))
    assert read_people(tmp_path / "clip.json").index("right_hip", "left_hip") == [1, 0]
