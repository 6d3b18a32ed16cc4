from dataclasses import replace

import pytest
import torch

from dance_eval.metrics.beat_energy import BeatEnergy, energy_at
from tests.dance_eval.metrics.sets import flickering

RANDOM = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_energy_against_a_plain_loop():
    beats = torch.tensor([0.2, 0.777, 1.5], dtype=torch.float64)
    total = 0.0
    for beat in beats.tolist():
        place = beat * 30 - 0.5
        before = int(place)
        total += RANDOM[before] + (place - before) * (RANDOM[before + 1] - RANDOM[before])
    assert energy_at(RANDOM, beats, fps=30.0) == pytest.approx(float(total / 3 / RANDOM.mean()))


def test_one_is_chance():
    """Over all shifts of the beats in a circle."""
    whole = torch.cat([RANDOM, RANDOM[:1]])  # 61 samples, so that the last step closes the circle
    beats = torch.tensor([0.25, 0.75, 1.25], dtype=torch.float64)
    shifts = torch.arange(1000, dtype=torch.float64) / 500
    found = [energy_at(whole, (beats + s) % 2 + 0.5 / 30, fps=30.0) for s in shifts]
    assert torch.tensor(found).mean() * whole.mean() / RANDOM.mean() == pytest.approx(1, abs=1e-3)


def test_a_dance_that_rests_on_the_beats():
    # The level swings at 1 Hz, so it stands still every half second.
    dance = flickering(2.0)
    rests = torch.arange(0.25, 2.4, 0.5)
    on_beat = BeatEnergy().score_clip(replace(dance, beats_seconds=rests))
    between = BeatEnergy().score_clip(replace(dance, beats_seconds=rests + 0.25))
    assert on_beat["at_beats"] < 0.6 and between["at_beats"] > 1.3
    sharp = BeatEnergy(smoothing_seconds=0.0).score_clip(replace(dance, beats_seconds=rests))
    assert sharp["at_beats"] < 0.1
    assert on_beat["level"] == between["level"] > 0
    assert on_beat["without_beats"] == 0


def test_no_beats_or_no_motion():
    still = replace(flickering(0.0), beats_seconds=torch.tensor([0.5]))
    without = replace(flickering(2.0), beats_seconds=torch.zeros(0))
    assert BeatEnergy().score_clip(still) == {"level": 0, "without_beats": 1}
    assert BeatEnergy().score_clip(without).keys() == {"level", "without_beats"}
    assert energy_at(torch.zeros(0), torch.tensor([0.5]), fps=30.0) is None
