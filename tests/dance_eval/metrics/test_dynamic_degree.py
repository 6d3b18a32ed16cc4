"""VBench's dynamic degree: torchvision's RAFT at random weights, and the rule on known flows."""

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.dynamic_degree import DynamicDegree, RaftFlow, fastest_motion
from musicinfuser.safetensors_files import save_tensors
from tests.small_encoders import noise


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = raft_small(weights=None)
    path = tmp_path_factory.mktemp("raft") / "raft.safetensors"
    save_tensors(network.state_dict(), path)
    return str(path)


def clip_of(frames, fps=30.0):
    return ScoredClip(frames=frames, fps=fps, waveform=None, rate_hz=1, name="a.mp4", seed=0)


def test_lengths_are_those_of_torchvisions_network(weights):
    frames = noise(2, 130, 140)
    raft = RaftFlow(weights=weights, size="small", num_updates=2, device="cpu")
    found = raft.lengths(frames[0], frames[1])
    network = raft_small(weights=None).eval()
    network.load_state_dict({k: v for k, v in raft.load().state_dict().items()})
    levels = frames.permute(0, 3, 1, 2).double() / 255 * 2 - 1
    padded = np.pad(levels.numpy(), ((0, 0), (0, 0), (3, 3), (2, 2)), mode="edge")
    pair = torch.tensor(padded).float()
    with torch.no_grad():
        flow = network(pair[:1], pair[1:], num_flow_updates=2)[-1][0].numpy()
    assert found.shape == (136, 144)
    np.testing.assert_allclose(found.numpy(), np.hypot(*flow), rtol=1e-3, atol=1e-3)
    assert raft.fingerprints()["weights"] and raft.in_workers
    with pytest.raises(ValueError, match="140x100 px are too small for RAFT"):
        raft.lengths(frames[0, :100], frames[1, :100])


def test_the_fastest_twentieth_counts():
    lengths = torch.randperm(1000).reshape(40, 25).float()
    expected = np.sort(lengths.numpy().ravel())[::-1][:50].mean()
    assert fastest_motion(lengths) == pytest.approx(float(expected))


@pytest.mark.parametrize(("num_moving", "expected"), [(4, 0.0), (5, 1.0), (19, 1.0)])
def test_a_clip_moves_if_a_quarter_of_its_frames_do(monkeypatch, num_moving, expected):
    """Of 73 frames at 30 per second every fourth counts: 19, of which round(19 / 4) must move."""
    calls = []

    def lengths(self, first, second):
        calls.append((int(first[0, 0, 0]), int(second[0, 0, 0])))
        is_fast = len(calls) <= num_moving
        return torch.full((256, 300), 6.1 if is_fast else 5.9)

    monkeypatch.setattr(RaftFlow, "lengths", lengths)
    frames = torch.arange(73, dtype=torch.uint8)[:, None, None, None].expand(-1, 256, 300, 3)
    values = DynamicDegree().score_clip(clip_of(frames))
    assert values["score"] == expected
    assert calls[:3] == [(0, 4), (4, 8), (8, 12)] and len(calls) == 36
    moving = min(num_moving, 18)
    assert values["level"] == pytest.approx((moving * 6.1 + (18 - moving) * 5.9) / 18 / 6)


def test_weights_that_are_not_there_are_named_before_the_first_clip(tmp_path, monkeypatch, weights):
    with pytest.raises(ValueError, match="the file no.pth does not exist"):
        DynamicDegree(flow=RaftFlow(weights="no.pth")).fingerprints()
    with pytest.raises(ValueError, match="weights must be .*'C_T_V1'"):
        RaftFlow(weights="things")
    with pytest.raises(ValueError, match="holds no weights of raft_large"):
        DynamicDegree(flow=RaftFlow(weights=weights)).check()

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    assert RaftFlow().fingerprints() == {"weights": "raft_large_C_T_V1-22a6c225.pth"}
    with pytest.raises(ValueError, match="raft_large_C_T_V1.* could not be fetched"):
        DynamicDegree().check()
