import json

import pytest
import torch
import yaml

from dance_eval.commands.options import read_metrics
from dance_eval.loading import EvaluationError
from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.motion import frame_difference, kinematic_beats
from musicinfuser.keyed_random import generator
from small_world.metrics.pose import PoseNet, PoseSpeed
from small_world.metrics.probes import ProbeError, chunks_of, pixels_of

CONFIG = {"size": 32, "fine_width": 4, "coarse_width": 4, "joints": ["head", "hand"]}


def noise(num_frames, height=32, width=32, seed=0):
    stream = generator(seed, 0, "test frames")
    return torch.randint(256, (num_frames, height, width, 3), generator=stream, dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = PoseNet(CONFIG).train()
    # One pass in training, so that the running statistics are no ones and zeros.
    network(pixels_of(noise(8), size=32))
    network.save(tmp_path / "pose")
    return tmp_path / "pose"


def test_joints_are_the_mean_of_what_all_cells_vote_for(folder):
    network = PoseNet.load(folder)
    frames = noise(3)
    pixels = frames.permute(0, 3, 1, 2).float() / 255
    logits, votes = network.maps(pixels)
    assert logits.shape == (3, 2, 8, 8)
    found = network.read(frames)
    assert (found.shape, found.dtype) == ((3, 2, 2), torch.float32)
    for n in range(3):
        for j in range(2):
            weights = [[float(logits[n, j, y, x].exp()) for x in range(8)] for y in range(8)]
            total = sum(map(sum, weights))
            for axis in range(2):
                mean = sum(
                    weights[y][x] * float(votes[n, j, axis, y, x])
                    for y in range(8)
                    for x in range(8)
                )
                assert float(found[n, j, axis]) == pytest.approx(mean / total, abs=1e-5)


def test_cells_vote_for_places_near_their_middle(folder):
    network = PoseNet.load(folder)
    torch.nn.init.zeros_(network.head[-1].weight)
    torch.nn.init.zeros_(network.head[-1].bias)
    _, votes = network.maps(pixels_of(noise(1), size=32))
    assert votes[0, 1, :, 2, 5].tolist() == pytest.approx([5.5 / 8, 2.5 / 8])
    # All cells alike: the middle of the picture.
    assert network.read(noise(1))[0].flatten().tolist() == pytest.approx([0.5] * 4)


def test_a_clip_is_read_frame_by_frame_at_the_networks_size(folder, monkeypatch):
    network = PoseNet.load(folder)
    frames = noise(5, 48, 64)
    whole = network.read(frames)
    alone = torch.cat([network.read(frame[None]) for frame in frames])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("small_world.metrics.probes.CHUNK_FRAMES", 2)
    assert [len(part) for part in chunks_of(frames, size=32)] == [2, 2, 1]
    torch.testing.assert_close(network.read(frames), whole, rtol=1e-4, atol=1e-5)
    assert network.read(frames[:0]).shape == (0, 2, 2)


def test_pixels_keep_levels_and_are_averaged_when_scaled_down():
    frames = torch.zeros(1, 64, 128, 3, dtype=torch.uint8)
    frames[:, :, 64:] = torch.tensor([255, 51, 0], dtype=torch.uint8)
    pixels = pixels_of(frames, size=32)
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels[0, :, 16, 2].tolist() == [0, 0, 0]
    assert pixels[0, :, 16, 30].tolist() == pytest.approx([1, 0.2, 0], abs=1e-5)


def test_a_saved_probe_comes_back_and_is_frozen(folder):
    first, again = PoseNet.load(folder), PoseNet.load(folder)
    assert torch.equal(first.read(noise(2)), again.read(noise(2)))
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    assert first.joint_names == ("head", "hand")
    first.save(folder.parent / "copy")
    copy = PoseNet.load(folder.parent / "copy")
    assert torch.equal(copy.read(noise(2)), first.read(noise(2)))


def test_what_is_no_probe_is_refused_in_one_sentence(folder, tmp_path):
    with pytest.raises(ProbeError, match=r"gone: holds no probe .*train_probes`\.$"):
        PoseNet.load(tmp_path / "gone")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "kind": "attributes"}))
    with pytest.raises(ProbeError, match="is not a 'pose' probe"):
        PoseNet.load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "joints": ["head"]}))
    with pytest.raises(ProbeError, match="do not fit together"):
        PoseNet.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ProbeError, match="holds no probe that can be read"):
        PoseNet.load(folder)


def test_frames_of_another_layout_are_refused(folder):
    network = PoseNet.load(folder)
    with pytest.raises(ValueError, match=r"\(5, 3, 32, 32\)"):
        network.read(torch.zeros(5, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="float32"):
        network.read(torch.zeros(5, 32, 32, 3))


def test_speed_is_the_mean_length_of_the_joints_steps(folder, monkeypatch):
    places = torch.tensor([[[0.1, 0.2], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]], [[0.4, 0.6]] * 2])
    monkeypatch.setattr(PoseNet, "read", lambda self, frames: places)
    speed = PoseSpeed(str(folder))(noise(3))
    assert speed.dtype == torch.float64
    last = (0 + (0.1**2 + 0.1**2) ** 0.5) / 2
    assert speed.tolist() == pytest.approx([(0.5 + 0) / 2, last], abs=1e-6)


def test_a_still_clip_has_no_speed(folder):
    speed = PoseSpeed(str(folder))
    assert speed(noise(1).expand(6, -1, -1, -1)).tolist() == [0] * 5
    assert speed(noise(1)).shape == (0,)


class Swings(MotionCurve):
    """Rests every half second at 30 fps, whatever the frames show."""

    def __init__(self, first_frame: int = 6) -> None:
        self.first_frame = first_frame

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        turns = (torch.arange(len(frames) - 1) - self.first_frame) / 15
        return 1 - torch.cos(2 * torch.pi * turns)


def test_any_motion_curve_gives_the_beats():
    frames = noise(1).expand(60, -1, -1, -1)
    assert kinematic_beats(frame_difference(frames), fps=30.0).tolist() == []
    beats = kinematic_beats(Swings()(frames), fps=30.0)
    assert beats.tolist() == pytest.approx([6.5 / 30 + 0.5 * k for k in range(4)], abs=0.001)
    clip = ScoredClip(frames, 30.0, None, 1, "clip", 0, beats)
    assert BeatAlignment().score_clip(clip)["without_beats"] == 1
    assert BeatAlignment(motion=Swings()).score_clip(clip)["score"] == pytest.approx(1)
    assert BeatAlignment(motion=Swings(13)).score_clip(clip)["score"] < 0.1


def write_metrics(path, motion):
    spec = {
        "class_path": "dance_eval.metrics.beat_alignment.BeatAlignment",
        "init_args": {"motion": motion},
    }
    path.write_text(yaml.safe_dump([spec]))
    return path


def test_a_config_names_the_curve_and_its_weights_identify_the_setting(folder, tmp_path):
    motion = {
        "class_path": "small_world.metrics.pose.PoseSpeed",
        "init_args": {"weights": str(folder)},
    }
    path = write_metrics(tmp_path / "metrics.yaml", motion)
    [metric], [spec] = read_metrics(path)
    assert isinstance(metric.motion, PoseSpeed)
    assert spec["init_args"]["motion"] == motion
    network = PoseNet.load(folder)
    network.up.bias += 1
    network.save(folder)
    _, [again] = read_metrics(path)
    assert again["init_args"] == spec["init_args"]
    assert again["files"] != spec["files"]
    [plain], [spec] = read_metrics(write_metrics(tmp_path / "plain.yaml", None))
    assert plain.motion is None
    assert "files" not in spec


def test_missing_weights_are_one_sentence(tmp_path):
    motion = {"class_path": "small_world.metrics.pose.PoseSpeed", "init_args": {"weights": "gone"}}
    path = write_metrics(tmp_path / "metrics.yaml", motion)
    with pytest.raises(EvaluationError, match=r"metrics.yaml: gone: holds no probe .*`\.$"):
        read_metrics(path)
