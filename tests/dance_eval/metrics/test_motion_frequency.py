import math

import pytest
import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.motion_frequency import MotionFrequency, dominant_frequency


def wave(hertz, *, num_samples=72, rate_hz=30.0):
    return 2 + torch.cos(2 * math.pi * hertz * torch.arange(num_samples) / rate_hz + 0.4)


@pytest.mark.parametrize("hertz", [1.0, 1.63, 2.25, 4.1])
@pytest.mark.parametrize("num_samples", [72, 144])
def test_finds_a_wave_between_the_bins_of_the_clip(hertz, num_samples):
    found = dominant_frequency(wave(hertz, num_samples=num_samples), rate_hz=30.0)
    assert found == pytest.approx(hertz, rel=0.04)


def test_the_stronger_of_two_waves_wins_unless_it_lies_outside_the_band():
    curve = wave(1.2) + 3 * wave(3.1)
    assert dominant_frequency(curve, rate_hz=30.0) == pytest.approx(3.1, rel=0.04)
    assert dominant_frequency(curve, rate_hz=30.0, band_hz=(0.5, 2.0)) == pytest.approx(
        1.2, rel=0.15
    )


def test_agrees_with_a_slow_sum_over_frequencies():
    curve = torch.rand(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    window = torch.hann_window(50, periodic=False, dtype=torch.float64)
    centred = (curve - curve.mean()) * window
    grid = [k * 30.0 / 4096 for k in range(2049)]
    grid = [f for f in grid if 0.5 <= f <= 6.0]
    t = torch.arange(50, dtype=torch.float64) / 30.0
    power = [
        float((centred * torch.cos(2 * math.pi * f * t)).sum() ** 2)
        + float((centred * torch.sin(2 * math.pi * f * t)).sum() ** 2)
        for f in grid
    ]
    expected = grid[max(range(len(grid)), key=power.__getitem__)]
    assert dominant_frequency(curve, rate_hz=30.0) == pytest.approx(expected, abs=1e-9)


def test_stillness_has_no_frequency():
    assert dominant_frequency(torch.full((72,), 3.0), rate_hz=30.0) == 0.0


def test_a_clip_that_flickers_twice_a_second():
    frames = torch.zeros(73, 8, 8, 3, dtype=torch.uint8)
    # Brightness swings once per second; it changes most twice in each swing.
    level = 120 + 100 * torch.sin(2 * math.pi * torch.arange(73) / 30)
    frames += level.round().to(torch.uint8)[:, None, None, None]
    clip = ScoredClip(frames, 30.0, None, 30720, name="flicker", seed=0)
    assert MotionFrequency().score_clip(clip)["hertz"] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    "call, problem",
    [
        (lambda: dominant_frequency(torch.ones(3), rate_hz=30.0), "3 samples"),
        (lambda: dominant_frequency(wave(1), rate_hz=30.0, band_hz=(2.0, 1.0)), "band_hz"),
        (lambda: dominant_frequency(wave(1), rate_hz=30.0, band_hz=(40.0, 50.0)), "above"),
        (lambda: MotionFrequency(lowest_hz=5.0, highest_hz=4.0), "band_hz"),
    ],
)
def test_says_what_is_wrong(call, problem):
    with pytest.raises(ValueError, match=problem):
        call()
