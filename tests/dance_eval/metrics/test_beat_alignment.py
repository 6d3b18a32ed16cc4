import math

import pytest
import torch

from dance_eval.metrics.beat_alignment import BeatAlignment, beat_alignment
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.rhythm import shifted_scores
from musicinfuser.keyed_random import generator
from tests.dancing_square import swinging_square


def slow_alignment(kinematic, music, sigma, average_over):
    asked, others = (kinematic, music) if average_over == "kinematic" else (music, kinematic)
    if not asked or not others:
        return 0.0
    total = 0.0
    for time in asked:
        nearest = min(abs(time - other) for other in others)
        total += math.exp(-(nearest**2) / (2 * sigma**2))
    return total / len(asked)


def swinging_clip(*, name="clip", beats_seconds, num_frames=73, phase_seconds=0.2, seed=0):
    return ScoredClip(
        frames=swinging_square(
            num_frames=num_frames, fps=30.0, period_seconds=0.5, phase_seconds=phase_seconds
        ),
        fps=30.0,
        waveform=None,
        rate_hz=16000,
        name=name,
        seed=seed,
        beats_seconds=torch.tensor(beats_seconds, dtype=torch.float64),
    )


def grid(phase_seconds, num_beats=5):
    return [phase_seconds + 0.5 * k for k in range(num_beats)]


def test_both_directions_by_hand():
    kinematic, music = torch.tensor([1.0, 2.1]), torch.tensor([1.05, 2.0, 3.0])
    near, far = math.exp(-0.5), math.exp(-2.0)
    score = beat_alignment(kinematic, music)
    assert float(score) == pytest.approx((near + far) / 2, abs=1e-6)
    score = beat_alignment(kinematic, music, average_over="music")
    assert float(score) == pytest.approx((near + far) / 3, abs=1e-6)


@pytest.mark.parametrize("average_over", ["kinematic", "music"])
@pytest.mark.parametrize(("num_kinematic", "num_music"), [(1, 1), (3, 9), (20, 4), (0, 5), (5, 0)])
def test_against_a_plain_loop(average_over, num_kinematic, num_music):
    stream = generator(3, num_kinematic, "test beats")
    kinematic = torch.rand(num_kinematic, generator=stream) * 5
    music = torch.rand(4, num_music, generator=stream) * 5
    scores = beat_alignment(kinematic, music, sigma_seconds=0.1, average_over=average_over)
    expected = [
        slow_alignment(kinematic.tolist(), row.tolist(), 0.1, average_over) for row in music
    ]
    assert scores.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_directions_punish_different_things():
    music = torch.arange(0, 4, 0.5)
    lazy, busy = music[::4], torch.arange(0, 4, 0.25)
    assert float(beat_alignment(lazy, music)) == pytest.approx(1)
    assert float(beat_alignment(lazy, music, average_over="music")) == pytest.approx(0.25, abs=1e-5)
    assert float(beat_alignment(busy, music)) == pytest.approx(0.5, abs=1e-5)
    assert float(beat_alignment(busy, music, average_over="music")) == pytest.approx(1)


def test_senseless_settings_are_refused():
    beats = torch.tensor([1.0])
    with pytest.raises(ValueError, match="sigma_seconds is 0"):
        beat_alignment(beats, beats, sigma_seconds=0)
    with pytest.raises(ValueError, match="'dance'"):
        beat_alignment(beats, beats, average_over="dance")
    with pytest.raises(ValueError, match="num_shifts is 1"):
        BeatAlignment(num_shifts=1)
    with pytest.raises(ValueError, match="smoothing_seconds"):
        BeatAlignment(smoothing_seconds=-1.0)
    with pytest.raises(ValueError, match="sigma_seconds"):
        BeatAlignment(sigma_seconds=-1.0)


@pytest.mark.parametrize("beats_per_minute", [80, 100, 120, 130])
def test_chance_level_is_the_integral_of_the_kernel_over_one_beat(beats_per_minute):
    period, sigma = 60 / beats_per_minute, 0.05
    analytic = sigma * math.sqrt(2 * math.pi) / period * math.erf(period / math.sqrt(8) / sigma)
    duration = 40 * period
    # Away from the ends, where a beat lacks a neighbour on one side.
    kinematic = period + torch.rand(50, generator=generator(0, 0, "dance")) * (
        duration - 2 * period
    )
    shifted = shifted_scores(
        beat_alignment,
        kinematic,
        torch.arange(40) * period,
        duration_seconds=duration,
        stream=generator(0, "clip", "beat shift"),
        num_shifts=4000,
    )
    assert float(shifted.mean()) == pytest.approx(analytic, abs=0.004)


def test_shifts_move_all_music_beats_together_around_the_clip():
    kinematic, music, duration = [0.4, 1.5, 2.2], [0.1, 0.7, 1.3, 2.0], 2.4
    shifted = shifted_scores(
        beat_alignment,
        torch.tensor(kinematic, dtype=torch.float64),
        torch.tensor(music, dtype=torch.float64),
        duration_seconds=duration,
        stream=generator(7, "clip", "beat shift"),
        num_shifts=50,
    )
    draws = torch.rand(50, generator=generator(7, "clip", "beat shift"), dtype=torch.float64)
    expected = [
        slow_alignment(kinematic, [(t + u * duration) % duration for t in music], 0.05, "kinematic")
        for u in draws.tolist()
    ]
    assert shifted.tolist() == pytest.approx(expected, abs=1e-9)


def test_many_beats_are_scored_in_parts(monkeypatch):
    def scores():
        return shifted_scores(
            beat_alignment,
            torch.linspace(0, 9, 40),
            torch.linspace(0, 9, 30),
            duration_seconds=10.0,
            stream=generator(0, "clip", "beat shift"),
            num_shifts=100,
        )

    whole = scores()
    monkeypatch.setattr("dance_eval.metrics.rhythm._CHUNK_DISTANCES", 7 * 40 * 30)
    assert torch.equal(scores(), whole)


def test_a_dance_on_the_beat_scores_far_above_its_chance_level():
    values = BeatAlignment().score_clip(swinging_clip(beats_seconds=grid(0.2)))
    assert values["score"] > 0.9
    assert 0.2 < values["chance"] < 0.3
    assert values["z"] > 2
    assert (values["num_kinematic_beats"], values["num_music_beats"]) == (5, 5)
    assert values["without_beats"] == 0


def test_a_dance_between_the_beats_scores_below_its_chance_level():
    values = BeatAlignment().score_clip(swinging_clip(beats_seconds=grid(0.45, 4)))
    assert values["score"] < 0.01
    assert values["z"] < -0.5


@pytest.mark.parametrize(("average_over", "sigma"), [("kinematic", 0.05), ("music", 0.1)])
def test_z_counts_standard_deviations_of_the_shifted_scores(average_over, sigma):
    music, duration = [0.25, 0.8, 1.6], 73 / 30
    clip = swinging_clip(beats_seconds=music, name="a.mp4", seed=11)
    metric = BeatAlignment(num_shifts=200, average_over=average_over, sigma_seconds=sigma)
    values = metric.score_clip(clip)
    draws = torch.rand(200, generator=generator(11, "a.mp4", "beat shift"), dtype=torch.float64)
    # The square rests at 0.2 + k / 2; the metric sees this to within half a frame.
    shifted = [
        slow_alignment(
            grid(0.2), [(t + u * duration) % duration for t in music], sigma, average_over
        )
        for u in draws.tolist()
    ]
    mean = sum(shifted) / 200
    spread = math.sqrt(sum((score - mean) ** 2 for score in shifted) / 199)
    assert values["chance"] == pytest.approx(mean, abs=0.02)
    assert values["z"] == pytest.approx((values["score"] - values["chance"]) / spread, rel=0.15)


@pytest.mark.parametrize(
    ("frames", "beats"), [("still", [0.5, 1.0]), ("swinging", []), ("swinging", [9.0, -1.0])]
)
def test_a_clip_without_beats_scores_zero_and_is_counted(frames, beats):
    clip = swinging_clip(beats_seconds=beats)
    if frames == "still":
        clip.frames[:] = clip.frames[:1].clone()
    values = BeatAlignment().score_clip(clip)
    assert values["without_beats"] == 1
    assert (values["score"], values["chance"], values["z"]) == (0, 0, 0)


def test_draws_depend_on_seed_and_name_only():
    def chance(**key):
        return BeatAlignment(num_shifts=20).score_clip(
            swinging_clip(beats_seconds=grid(0.2), **key)
        )["chance"]

    assert chance(name="a", seed=1) == chance(name="a", seed=1)
    assert chance(name="a", seed=1) != chance(name="b", seed=1)
    assert chance(name="a", seed=1) != chance(name="a", seed=2)


def test_direction_and_kernel_reach_the_score():
    clip = swinging_clip(beats_seconds=[0.3])
    narrow = BeatAlignment().score_clip(clip)["score"]
    assert BeatAlignment(sigma_seconds=0.2).score_clip(clip)["score"] > 1.5 * narrow
    assert BeatAlignment(average_over="music").score_clip(clip)["score"] > 3 * narrow


def test_the_torchmetric_averages_over_clips_and_merges_processes():
    clips = [
        swinging_clip(beats_seconds=beats, name=str(index))
        for index, beats in enumerate([grid(0.2), grid(0.3), []])
    ]
    metric, here, there = BeatAlignment(), BeatAlignment(), BeatAlignment()
    for clip in clips:
        metric.update(clip)
    here.update(clips[0])
    there.update(clips[1])
    there.update(clips[2])
    here.merge_state(there)
    single = [BeatAlignment().score_clip(clip) for clip in clips]
    for average in (metric.compute(), here.compute()):
        assert set(average) == set(BeatAlignment.value_names)
        for name, value in average.items():
            expected = sum(values[name] for values in single) / 3
            assert float(value) == pytest.approx(expected, abs=1e-6)
    assert float(metric.compute()["without_beats"]) == pytest.approx(1 / 3)
    metric.reset()
    metric.update(clips[0])
    assert float(metric.compute()["score"]) == pytest.approx(single[0]["score"], abs=1e-6)
