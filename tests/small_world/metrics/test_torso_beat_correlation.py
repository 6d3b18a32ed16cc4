import math

import numpy as np
import pytest
import torch

from dance_eval.metrics.clip import ScoredClip
from musicinfuser.keyed_random import generator
from small_world.metrics.pose import PoseNet
from small_world.metrics.probes import ProbeError
from small_world.metrics.torso_beat_correlation import (
    TORSO,
    TorsoBeatCorrelation,
    beat_correlation,
    beat_position,
)

CONFIG = {"size": 32, "fine_width": 4, "coarse_width": 4, "joints": ["head", *TORSO]}
TIMES = torch.arange(73, dtype=torch.float64) / 30


def slow_position(time, beats):
    """By walking from beat to beat."""
    after = next((k for k in range(1, len(beats) - 1) if time < beats[k]), len(beats) - 1)
    start, end = beats[after - 1], beats[after]
    return after - 1 + (time - start) / (end - start)


def slow_correlation(curve, position, *, without_two_beat_swing):
    bounce = np.cos(2 * np.pi * position)
    if not without_two_beat_swing:
        return np.corrcoef(curve, bounce)[0, 1]
    known = np.stack(
        [
            np.ones(len(curve)),
            np.arange(len(curve)),
            np.cos(np.pi * position),
            np.sin(np.pi * position),
        ],
        axis=1,
    )
    left = [
        values - known @ np.linalg.lstsq(known, values, rcond=None)[0] for values in (curve, bounce)
    ]
    return np.corrcoef(*left)[0, 1]


def test_positions_by_hand():
    beats = torch.tensor([1.0, 1.5, 2.5])
    times = torch.tensor([0.0, 0.75, 1.0, 1.25, 2.0, 2.5, 4.5])
    assert beat_position(times, beats).tolist() == pytest.approx([-2, -0.5, 0, 0.5, 1.5, 2, 4])


def test_positions_against_a_walk():
    stream = generator(0, 0, "test beats")
    beats = (torch.rand(3, 6, generator=stream) * 2.4).sort(dim=-1).values
    found = beat_position(TIMES, beats)
    assert found.shape == (3, 73)
    for row, expected in zip(found.tolist(), beats.double().tolist(), strict=True):
        assert row == pytest.approx([slow_position(t, expected) for t in TIMES.tolist()])


@pytest.mark.parametrize("beats", [[], [0.5]])
def test_too_few_beats_have_no_phase(beats):
    with pytest.raises(ValueError, match=f"{len(beats)} beats .* at least 2"):
        beat_position(TIMES, torch.tensor(beats))


def test_beats_that_fall_together_are_refused():
    with pytest.raises(ValueError, match="fall together"):
        beat_position(TIMES, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("without_two_beat_swing", [True, False])
def test_correlation_against_least_squares(without_two_beat_swing):
    stream = generator(1, 0, "test curve")
    curve = torch.randn(73, generator=stream, dtype=torch.float64) + TIMES
    position = beat_position(TIMES, torch.tensor([[0.2, 0.7, 1.4, 1.9], [0.0, 0.6, 1.1, 2.3]]))
    found = beat_correlation(curve, position, without_two_beat_swing=without_two_beat_swing)
    for value, row in zip(found.tolist(), position.numpy(), strict=True):
        expected = slow_correlation(
            curve.numpy(), row, without_two_beat_swing=without_two_beat_swing
        )
        assert value == pytest.approx(expected, abs=1e-9)


def test_a_swing_of_two_beats_and_a_drift_hide_no_bounce():
    position = TIMES / 0.5
    bounce = 0.02 * torch.cos(2 * math.pi * position)
    swing = 0.1 * torch.cos(math.pi * position + 0.4) + 0.05 * TIMES
    assert float(beat_correlation(bounce + swing, position)) == pytest.approx(1)
    assert float(beat_correlation(swing - bounce, position)) == pytest.approx(-1)
    plain = beat_correlation(bounce + swing, position, without_two_beat_swing=False)
    assert abs(float(plain)) < 0.4
    aside = 0.02 * torch.sin(2 * math.pi * position)
    assert abs(float(beat_correlation(aside + swing, position))) < 0.15


@pytest.mark.parametrize("without_two_beat_swing", [True, False])
def test_a_torso_at_rest_correlates_with_nothing(without_two_beat_swing):
    curve = torch.full((73,), 0.37)
    found = beat_correlation(curve, TIMES / 0.5, without_two_beat_swing=without_two_beat_swing)
    assert float(found) == 0


@pytest.fixture
def folder(tmp_path):
    PoseNet(CONFIG).save(tmp_path)
    return str(tmp_path)


def clip_of(beats, *, name="clip", seed=0):
    return ScoredClip(
        frames=torch.zeros(73, 32, 32, 3, dtype=torch.uint8),
        fps=30.0,
        waveform=None,
        rate_hz=1,
        name=name,
        seed=seed,
        beats_seconds=torch.tensor(beats, dtype=torch.float64),
    )


def dance(monkeypatch, heights):
    """The torso moves as told, the head does not matter."""
    places = torch.rand(73, len(CONFIG["joints"]), 2)
    places[:, 1:, 1] = heights[:, None].float() + torch.linspace(-0.1, 0.1, len(TORSO))
    monkeypatch.setattr(PoseNet, "read", lambda self, frames: places)


BEATS = [0.1 + 0.5 * k for k in range(5)]


def test_sinking_on_the_beat_is_positive_and_chance_is_not(folder, monkeypatch):
    # The top of the picture is 0, so the torso is lowest where the value is largest.
    bounce = 0.5 + 0.02 * torch.cos(2 * math.pi * (TIMES - 0.1) / 0.5)
    dance(monkeypatch, bounce)
    values = TorsoBeatCorrelation(weights=folder).score_clip(clip_of(BEATS))
    assert values["correlation"] == pytest.approx(1, abs=1e-3)
    assert abs(values["chance"]) < 0.15
    between = [0.35 + 0.5 * k for k in range(4)]
    values = TorsoBeatCorrelation(weights=folder).score_clip(clip_of(between))
    assert values["correlation"] == pytest.approx(-1, abs=1e-3)


def test_chance_is_the_mean_over_circular_shifts(folder, monkeypatch):
    heights = 0.5 + 0.1 * torch.randn(73, generator=generator(2, 0, "test torso"))
    dance(monkeypatch, heights)
    duration = 73 / 30
    metric = TorsoBeatCorrelation(weights=folder, num_shifts=20)
    values = metric.score_clip(clip_of(BEATS, name="a.mp4", seed=3))
    draws = torch.rand(20, generator=generator(3, "a.mp4", "beat shift"), dtype=torch.float64)
    shifted = []
    for draw in draws.tolist():
        beats = sorted((beat + draw * duration) % duration for beat in BEATS)
        position = np.array([slow_position(time, beats) for time in TIMES.tolist()])
        shifted.append(
            slow_correlation(heights.double().numpy(), position, without_two_beat_swing=True)
        )
    assert values["chance"] == pytest.approx(sum(shifted) / 20, abs=1e-4)
    assert metric.score_clip(clip_of(BEATS, name="b.mp4", seed=3))["chance"] != values["chance"]
    assert metric.score_clip(clip_of(BEATS, name="b.mp4"))["correlation"] == pytest.approx(
        values["correlation"]
    )


def test_the_swing_may_be_kept(folder, monkeypatch):
    heights = 0.5 + 0.1 * torch.cos(math.pi * (TIMES - 0.3) / 0.5)
    dance(monkeypatch, heights + 0.02 * torch.cos(2 * math.pi * (TIMES - 0.1) / 0.5))
    kept = TorsoBeatCorrelation(weights=folder, without_two_beat_swing=False)
    assert kept.score_clip(clip_of(BEATS))["correlation"] < 0.5
    assert TorsoBeatCorrelation(weights=folder).score_clip(clip_of(BEATS))["correlation"] > 0.99


@pytest.mark.parametrize("beats", [[], [1.0], [1.0, 9.0]])
def test_a_clip_with_fewer_than_two_beats_cannot_be_scored(folder, beats):
    with pytest.raises(ValueError, match="clip: holds [01] music beats"):
        TorsoBeatCorrelation(weights=folder).score_clip(clip_of(beats))


def test_wrong_settings_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="num_shifts is 0"):
        TorsoBeatCorrelation(weights=folder, num_shifts=0)
    PoseNet({**CONFIG, "joints": ["head", *TORSO[:-2]]}).save(tmp_path)
    with pytest.raises(ProbeError, match="knows no left_hip, right_hip"):
        TorsoBeatCorrelation(weights=str(tmp_path))


def test_weights_identify_the_setting(folder, tmp_path):
    first = TorsoBeatCorrelation(weights=folder).fingerprints()
    assert first == TorsoBeatCorrelation(weights=folder).fingerprints()
    PoseNet(CONFIG).save(tmp_path)
    assert TorsoBeatCorrelation(weights=folder).fingerprints() != first
