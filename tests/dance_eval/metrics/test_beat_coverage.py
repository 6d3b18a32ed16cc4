import math

import pytest
import torch

from dance_eval.metrics.beat_coverage import BeatCoverage, beat_coverage
from dance_eval.metrics.rhythm import shifted_scores
from musicinfuser.keyed_random import generator
from tests.dance_eval.metrics.test_beat_alignment import grid, swinging_clip


def slow_coverage(kinematic, music, tolerance):
    covered = sum(any(abs(k - m) <= tolerance for k in kinematic) for m in music)
    return covered / len(music) if music and kinematic else 0.0


@pytest.mark.parametrize(("num_kinematic", "num_music"), [(1, 1), (3, 9), (20, 4), (0, 5), (5, 0)])
def test_against_a_plain_loop(num_kinematic, num_music):
    stream = generator(5, num_kinematic, "test beats")
    kinematic = torch.rand(num_kinematic, generator=stream, dtype=torch.float64) * 5
    music = torch.rand(4, num_music, generator=stream, dtype=torch.float64) * 5
    expected = [slow_coverage(kinematic.tolist(), row.tolist(), 0.2) for row in music]
    assert beat_coverage(kinematic, music, tolerance_seconds=0.2).tolist() == expected


def test_a_gap_of_exactly_the_tolerance_counts():
    music = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    kinematic = torch.tensor([0.4, 1.1001], dtype=torch.float64)
    assert float(beat_coverage(kinematic, music)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("rate_hz", [1.5, 2.0])
def test_chance_is_that_of_a_poisson_dance(rate_hz):
    duration = 150.0
    draws = torch.rand(int(rate_hz * duration), generator=generator(1, 0, "dance"))
    shifted = shifted_scores(
        beat_coverage,
        draws.double() * duration,
        torch.arange(0, duration, 0.5, dtype=torch.float64),
        duration_seconds=duration,
        stream=generator(0, "clip", "beat shift"),
        num_shifts=50,
    )
    assert float(shifted.mean()) == pytest.approx(1 - math.exp(-0.2 * rate_hz), abs=0.04)


def test_chance_and_z_of_a_clip_against_a_plain_loop():
    music, duration = [0.25, 0.8, 1.6], 73 / 30
    clip = swinging_clip(beats_seconds=music, name="a.mp4", seed=11)
    metric = BeatCoverage(num_shifts=300, tolerance_seconds=0.12)
    values = metric.score_clip(clip)
    kinematic = metric.motion_moments(clip).tolist()
    draws = torch.rand(300, generator=generator(11, "a.mp4", "beat shift"), dtype=torch.float64)
    shifted = [
        slow_coverage(kinematic, [(t + u * duration) % duration for t in music], 0.12)
        for u in draws.tolist()
    ]
    mean = sum(shifted) / 300
    spread = math.sqrt(sum((score - mean) ** 2 for score in shifted) / 299)
    score = slow_coverage(kinematic, music, 0.12)
    assert values["score"] == pytest.approx(score)
    assert values["chance"] == pytest.approx(mean)
    assert values["z"] == pytest.approx((score - mean) / spread)


def test_a_dance_on_the_beat_covers_all_and_a_still_one_nothing():
    values = BeatCoverage().score_clip(swinging_clip(beats_seconds=grid(0.2)))
    assert values["score"] == 1 and 0.3 < values["chance"] < 0.6 and values["z"] > 1
    assert BeatCoverage().score_clip(swinging_clip(beats_seconds=grid(0.45, 4)))["score"] == 0
    still = swinging_clip(beats_seconds=grid(0.2))
    still.frames[:] = still.frames[:1].clone()
    values = BeatCoverage().score_clip(still)
    assert (values["score"], values["z"], values["without_beats"]) == (0, 0, 1)


def test_settings_are_checked_and_the_torchmetric_averages():
    with pytest.raises(ValueError, match="tolerance_seconds is 0"):
        BeatCoverage(tolerance_seconds=0)
    with pytest.raises(ValueError, match="num_shifts is 1"):
        BeatCoverage(num_shifts=1)
    metric = BeatCoverage(num_shifts=10)
    metric.update(swinging_clip(beats_seconds=grid(0.2)))
    metric.update(swinging_clip(beats_seconds=[]))
    assert float(metric.compute()["score"]) == pytest.approx(0.5)
    assert float(metric.compute()["without_beats"]) == pytest.approx(0.5)
