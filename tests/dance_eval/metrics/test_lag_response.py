import math

import numpy as np
import pytest
import torch

from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.lag_response import LagResponse, correlations, lag_slope
from dance_eval.metrics.motion import gaussian_smoothed
from tests.dance_eval.metrics.sets import combined, entry

FPS = 30.0
SHIFTS = (0.0, 0.1, 0.2, 0.3, 0.4)


def dance(bpm, *, phase=0.0, late=0.0, harmonics=(1.0, 0.0, 0.0), noise=None, num=72):
    """A motion curve with rests on the beats, swings of two beats and of half a beat."""
    beats = ((np.arange(num) + 0.5) / FPS - late) * bpm / 60 + phase
    one, two, half = harmonics
    curve = 2 - one * np.cos(2 * np.pi * beats) - half * np.cos(4 * np.pi * beats)
    curve = curve - two * np.cos(np.pi * beats + 1)
    if noise is not None:
        curve = curve + 0.5 * noise.standard_normal(num)
    return gaussian_smoothed(torch.from_numpy(curve), sigma_samples=2.5).numpy()


def test_correlations_against_a_plain_loop():
    first, second = np.random.default_rng(0).random((2, 20))
    found = correlations(first, second, 4)
    for lag in range(-4, 5):
        pairs = [(first[i], second[i + lag]) for i in range(20) if 0 <= i + lag < 20]
        a, b = zip(*pairs, strict=True)
        assert found[lag + 4] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert not correlations(np.ones(20), second, 4).any()


@pytest.mark.parametrize("bpm", [80, 100, 120, 150])
@pytest.mark.parametrize("harmonics", [(1, 0, 0), (1, 0.3, 0.5)], ids=["one beat", "several"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.5], ids=lambda share: f"follows by {share}")
def test_the_slope_is_that_of_the_dance_at_every_tempo(bpm, harmonics, share):
    """At 150 beats per minute a shift of 400 ms is a beat: one pair could not tell 1 from 0."""
    for phase in (0.0, 0.3, 0.7):
        stream = np.random.default_rng(7)
        for noise in (None, stream):
            curves = {
                shift: dance(bpm, phase=phase, late=share * shift, harmonics=harmonics, noise=noise)
                for shift in SHIFTS
            }
            slope, agreement = lag_slope(curves, fps=FPS)
            assert slope == pytest.approx(share, abs=0.03 if noise is None else 0.12)
            assert agreement > (0.95 if noise is None else 0.6)


@pytest.mark.parametrize("bpm", [80, 150])
def test_dances_that_know_nothing_of_their_shift_have_no_slope_on_average(bpm):
    """Not the same clip five times, but five unrelated dances at a tempo that was learned."""
    stream = np.random.default_rng(bpm)
    slopes = []
    for _ in range(80):
        curves = {
            shift: dance(bpm * stream.uniform(0.9, 1.1), phase=stream.random()) for shift in SHIFTS
        }
        slope, _ = lag_slope(curves, fps=FPS)
        backwards, _ = lag_slope({0.4 - shift: c for shift, c in curves.items()}, fps=FPS)
        assert backwards == pytest.approx(-slope, abs=0.006)
        slopes.append(slope)
    assert abs(np.mean(slopes)) < 3 * np.std(slopes) / math.sqrt(80)
    assert abs(np.mean(slopes)) < 0.35


def test_what_has_no_slope():
    curve = dance(120)
    assert lag_slope({0.0: curve}, fps=FPS) is None
    assert lag_slope({0.0: curve, 0.4: curve[:-1]}, fps=FPS) is None
    assert lag_slope({0.0: curve[:30], 0.4: curve[:30]}, fps=FPS) is None
    assert lag_slope({0.0: np.zeros(72), 0.4: np.zeros(72)}, fps=FPS) is None


class Named(MotionCurve):
    """The curve is told by the clip's name: tempo, phase and delay, or nothing."""

    def __call__(self, frames):
        raise AssertionError("a clip's name is enough")

    def of_clip(self, clip):
        bpm, phase, late, num = map(float, clip.name.split())
        return torch.from_numpy(dance(bpm, phase=phase, late=late, num=int(num)))


def shifted(shift, *, late, bpm=120, phase=0.0, num=72, track="a.wav", **fields):
    """A clip and its entry."""
    frames = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    clip = ScoredClip(frames, FPS, None, 16000, name=f"{bpm} {phase} {late} {num}", seed=0)
    heard = dict(heard=track, heard_offset_seconds=round(1.0 - shift, 6)) if shift else {}
    system = "s, shifted audio" if shift else "s"
    known = heard | dict(system=system, track=track, track_offset_seconds=1.0)
    return clip, entry(**known | fields)


def test_clips_belong_together_by_what_they_were_made_for():
    clips = [shifted(s, late=s, seed=0) for s in SHIFTS]
    clips += [shifted(s, late=0.0, bpm=95, seed=1) for s in SHIFTS]
    # Ordinary clips, another system, the track from elsewhere, and another track.
    clips += [shifted(0.0, late=0.0, seed=seed) for seed in (2, 3)]
    clips += [shifted(s, late=s, system="other, shifted audio") for s in (0.1, 0.2)]
    clips.append(shifted(0.9, late=0.0))
    elsewhere = dict(heard="b.wav", heard_offset_seconds=0.9, system="s, mismatched audio")
    clips.append(shifted(0.0, late=0.0, **elsewhere))
    values = combined(LagResponse(motion=Named(), smoothing_seconds=0.0), clips)
    assert values["slope"].mean == pytest.approx(0.5, abs=0.02)
    assert values["slope"].num_values == 2
    assert values["agreement"].mean > 0.95
    assert (values["num_without_slope"].mean, values["num_without_slope"].num_values) == (0, 2)


def test_groups_without_a_slope_are_counted_and_folders_are_kept_apart():
    clips = [shifted(0.1, late=0.1, seed=0)]
    clips += [shifted(s, late=s, seed=1, num=num) for s, num in ((0.0, 72), (0.1, 60))]
    values = combined(LagResponse(motion=Named()), clips)
    assert values["slope"].mean is None
    assert (values["num_without_slope"].mean, values["num_without_slope"].num_values) == (2, 2)
    # Two trainings, of which one follows: their mean is one value of one group.
    clips = [
        shifted(s, late=share * s, folder=folder)
        for folder, share in (("one", 1), ("two", 0))
        for s in SHIFTS
    ]
    values = combined(LagResponse(motion=Named()), clips)
    assert values["slope"].mean == pytest.approx(0.5, abs=0.02)
    assert values["slope"].num_values == 1


def test_senseless_settings_are_refused():
    with pytest.raises(ValueError, match="max_shift_seconds is 0"):
        LagResponse(max_shift_seconds=0)
    with pytest.raises(ValueError, match="smoothing_seconds"):
        LagResponse(smoothing_seconds=-1)
