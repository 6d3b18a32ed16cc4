import pytest
import torch

from dance_eval.metrics.av_align import AVAlign, motion_peaks, onset_peaks, peak_overlap
from dance_eval.metrics.clip import MotionCurve, ScoredClip
from musicinfuser.keyed_random import generator
from tests.dancing_square import click_track, swinging_square


def slow_overlap(audio, video, window):
    """As `av_align.py` has it."""
    pairs, used = 0, [False] * len(video)
    for a in audio:
        for j, v in enumerate(video):
            if not used[j] and v - window < a < v + window:
                pairs += 1
                used[j] = True
                break
    union = len(audio) + len(video) - pairs
    return pairs / union if union else 0.0


def slow_peaks(curve, fps, threshold):
    """As `av_align.py` has it: the flow of the first pair stands for the first frame too."""
    flows = [curve[0], *curve]
    return [
        i / fps
        for i in range(1, len(flows) - 1)
        if flows[i - 1] < flows[i] > flows[i + 1] and flows[i] >= threshold
    ]


@pytest.mark.parametrize(("num_audio", "num_video"), [(1, 1), (4, 9), (12, 5), (0, 3), (3, 0)])
@pytest.mark.parametrize("window", [0.033, 0.3])
def test_overlap_against_a_plain_loop(num_audio, num_video, window):
    stream = generator(2, num_audio, "peaks")
    audio = torch.rand(6, num_audio, generator=stream, dtype=torch.float64) * 3
    video = (torch.rand(num_video, generator=stream, dtype=torch.float64) * 3).sort().values
    found = peak_overlap(video, audio, window_seconds=window)
    expected = [slow_overlap(sorted(row.tolist()), video.tolist(), window) for row in audio]
    assert found.tolist() == pytest.approx(expected)


def test_overlap_by_hand():
    video = torch.tensor([0.5, 0.52, 1.5], dtype=torch.float64)
    audio = torch.tensor([0.51, 0.53, 1.6], dtype=torch.float64)
    # Both of the first take a partner of their own; 0.1 s is one window too far.
    assert float(peak_overlap(video, audio, window_seconds=0.1)) == pytest.approx(2 / 4)
    assert float(peak_overlap(video, audio[:0], window_seconds=0.1)) == 0
    assert float(peak_overlap(video[:0], audio[:0], window_seconds=0.1)) == 0


@pytest.mark.parametrize("threshold", [0.1, 0.6])
def test_peaks_against_a_plain_loop(threshold):
    curve = torch.rand(72, generator=generator(3, 0, "curve"), dtype=torch.float64)
    curve[20:22] = 0.95
    found = motion_peaks(curve, fps=24.0, threshold=threshold)
    assert found.tolist() == pytest.approx(slow_peaks(curve.tolist(), 24.0, threshold))
    assert len(found) > 5
    assert motion_peaks(curve[:1], fps=24.0).tolist() == []
    # The first value, which is there twice, is no peak; nor is the last.
    assert motion_peaks(torch.tensor([5.0, 1, 2]), fps=24.0).tolist() == []


class Pulses(MotionCurve):
    """Motion that peaks in given frames."""

    def __init__(self, *frames):
        self.peaks = frames

    def __call__(self, frames):
        curve = torch.zeros(len(frames) - 1, dtype=torch.float64)
        curve[[frame - 1 for frame in self.peaks]] = 1.0
        return curve


class Onsets(AVAlign):
    """Onsets as given, where librosa's detector is not what is asked about."""

    def music_moments(self, clip):
        return clip.music_beats()


def clip_with(beats, **fields):
    frames = torch.zeros(73, 4, 4, 3, dtype=torch.uint8)
    beats = torch.tensor(beats, dtype=torch.float64)
    values = dict(waveform=None, rate_hz=16000, name="a", seed=2, beats_seconds=beats)
    return ScoredClip(frames, 30.0, **values | fields)


def test_a_clip_with_its_chance_level():
    music, peaks = [0.5, 1.0, 1.52, 2.3], (15, 30, 46, 60)
    values = Onsets(motion=Pulses(*peaks), num_shifts=100).score_clip(clip_with(music))
    assert values["score"] == pytest.approx(3 / 5)
    duration, video = 73 / 30, [peak / 30 for peak in peaks]
    draws = torch.rand(100, generator=generator(2, "a", "beat shift"), dtype=torch.float64)
    shifted = [
        slow_overlap(sorted((t + u * duration) % duration for t in music), video, 1 / 30)
        for u in draws.tolist()
    ]
    assert values["chance"] == pytest.approx(sum(shifted) / 100)
    assert values["z"] > 2
    assert Onsets(motion=Pulses(*peaks)).score_clip(clip_with([]))["without_beats"] == 1
    assert Onsets(motion=Pulses(), threshold=0.5).score_clip(clip_with(music))["score"] == 0


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match="threshold is -1"):
        AVAlign(threshold=-1)
    with pytest.raises(ValueError, match="a: has no soundtrack"):
        AVAlign().score_clip(clip_with([]))


@pytest.mark.slow  # librosa compiles itself on first use
def test_clicks_where_the_square_is_fastest():
    rate_hz = 30720
    clicks = [0.45 + 0.5 * k for k in range(4)]
    frames = swinging_square(num_frames=73, fps=30.0, period_seconds=0.5, phase_seconds=0.2)
    sound = click_track(clicks, duration_seconds=73 / 30, rate_hz=rate_hz)
    onsets = onset_peaks(sound, rate_hz=rate_hz)
    assert len(onsets) == 4
    assert onsets.tolist() == pytest.approx(clicks, abs=0.03)
    assert onset_peaks(torch.zeros(rate_hz), rate_hz=rate_hz).shape == (0,)
    clip = ScoredClip(frames, 30.0, sound, rate_hz, name="a", seed=0)
    values = AVAlign(motion=None).score_clip(clip)
    assert values["num_music_beats"] == 4
    assert 0 <= values["chance"] < values["score"] <= 1
