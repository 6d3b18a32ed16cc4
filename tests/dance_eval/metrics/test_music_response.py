import math

import pytest
import torch

from dance_eval.metrics.music_response import MusicResponse, curve_distance
from musicinfuser.keyed_random import generator
from tests.dance_eval.metrics.sets import combined, entry, flickering


def slow_distance(first, second):
    a = [x - sum(first) / len(first) for x in first]
    b = [x - sum(second) / len(second) for x in second]
    apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return math.sqrt(apart / (sum(x * x for x in a) + sum(y * y for y in b)))


def test_distance_against_a_plain_loop():
    first, second = torch.rand(2, 50, generator=generator(0, 0, "curves"), dtype=torch.float64)
    assert curve_distance(first, second) == pytest.approx(
        slow_distance(first.tolist(), second.tolist())
    )


def test_distance_by_hand():
    wave = torch.sin(torch.arange(200) * math.pi / 10)
    quarter = torch.cos(torch.arange(200) * math.pi / 10)
    assert curve_distance(wave, wave + 5) == pytest.approx(0, abs=1e-6)
    assert curve_distance(wave, quarter) == pytest.approx(1, abs=1e-6)
    assert curve_distance(wave, -wave) == pytest.approx(math.sqrt(2), abs=1e-6)
    assert curve_distance(torch.ones(9), torch.zeros(9)) == 0


@pytest.mark.parametrize(
    ("other", "silent"),
    [("mismatched audio", "no audio"), ("hears another track", "hears nothing")],
    ids=["today's names", "names of version 0"],
)
def test_only_clips_of_one_prompt_and_seed_are_compared(other, silent):
    slow, fast, faster = flickering(1.5), flickering(2.5), flickering(3.5)
    clips = [
        (slow, entry(track="a.wav")),
        (slow, entry(track="b.wav")),
        (fast, entry(f"s, {other}", track="a.wav", heard="c.wav")),
        (faster, entry(f"s, {silent}", track="a.wav", heard="nothing")),
        (fast, entry(track="b.wav", seed=1)),
        (fast, entry(track="b.wav", prompt="another")),
        (fast, entry("another", track="d.wav")),
        (fast, entry(track="e.wav", seed=None, file="x.mp4")),
    ]
    metric = MusicResponse()
    values = combined(metric, clips)
    curves = [metric.describe(clip)[1:].tolist() for clip in (slow, fast, faster)]
    unlike = slow_distance(curves[0], curves[1])
    assert unlike > 0.5
    assert values["distance"].mean == pytest.approx((0 + 2 * unlike) / 3, abs=1e-6)
    quiet = [slow_distance(curve, curves[2]) for curve in (curves[0], curves[0], curves[1])]
    assert values["distance_to_silence"].mean == pytest.approx(sum(quiet) / 3)
    assert (values["num_alone"].mean, values["num_alone"].num_values) == (3, 7)
    assert values["num_unlike_pairs"].mean == 0


def test_a_model_that_does_not_listen_has_no_response():
    clips = [(flickering(2.0), entry(track=track, seed=s)) for track in "abc" for s in range(3)]
    values = combined(MusicResponse(), clips)
    assert (values["distance"].mean, values["distance"].num_values) == (0, 3)
    assert values["distance_to_silence"].mean is None


def test_clips_of_other_lengths_or_rates_are_counted():
    clips = [
        (flickering(2.0), entry(track="a.wav")),
        (flickering(2.0, num_frames=49), entry(track="b.wav")),
        (flickering(2.0, fps=24.0), entry(track="c.wav")),
    ]
    values = combined(MusicResponse(), clips)
    assert values["distance"].mean is None
    assert (values["num_unlike_pairs"].mean, values["num_alone"].mean) == (3, 3)


def test_clips_of_several_trainings_are_compared_within_their_folder():
    slow, fast = flickering(1.5), flickering(2.5)
    clips = [
        (clip, entry(folder=folder, track=track))
        for folder, clip in (("one", slow), ("two", fast))
        for track in ("a.wav", "b.wav")
    ]
    values = combined(MusicResponse(), clips)
    assert (values["distance"].mean, values["num_alone"].mean) == (0, 0)
    # Each folder for a track: of one training, they are compared.
    values = combined(MusicResponse(), [clips[0], clips[3]])
    assert values["distance"].mean > 0.5
