import json

import pytest
import torch

from dance_eval.metrics.beat_trackers import BEAT_RATE_HZ, LibrosaBeats
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.music_beats import (
    MusicBeats,
    beats_in_clip,
    read_known_beats,
)
from tests.dancing_square import click_track


def track_beats(waveform, *, rate_hz, **settings):
    return LibrosaBeats(**settings)(waveform, rate_hz=rate_hz).seconds


@pytest.mark.slow  # librosa compiles itself on first use
def test_librosa_finds_the_clicks():
    for beats_per_minute in (100, 120, 130):
        beats = [0.23 + 60 / beats_per_minute * k for k in range(20)]
        found = track_beats(
            click_track(beats, duration_seconds=beats[-1] + 0.5, rate_hz=BEAT_RATE_HZ),
            rate_hz=BEAT_RATE_HZ,
        )
        hits = [min(abs(float(time) - beat) for time in found) < 0.03 for beat in beats]
        assert sum(hits) >= 18
        assert len(found) <= 22
    assert len(track_beats(torch.zeros(3 * BEAT_RATE_HZ), rate_hz=BEAT_RATE_HZ)) == 0
    # Three quarters of the expected tempo and its double differ in which clicks they keep.
    beats = [0.23 + 0.25 * k for k in range(40)]
    fast = click_track(beats, duration_seconds=10.5, rate_hz=BEAT_RATE_HZ)
    slow_found = track_beats(fast, rate_hz=BEAT_RATE_HZ, start_bpm=60)
    fast_found = track_beats(fast, rate_hz=BEAT_RATE_HZ, start_bpm=240)
    assert len(fast_found) > 1.5 * len(slow_found)


@pytest.mark.slow  # librosa compiles itself on first use
def test_soft_beats_at_the_start_are_kept():
    """Clips often start where the track does; librosa would drop what is soft there."""
    rate_hz, period = BEAT_RATE_HZ, 0.5
    waveform = torch.zeros(12 * rate_hz)
    click = torch.hann_window(rate_hz // 50)
    for number in range(1, 23):
        start = round(number * period * rate_hz)
        loudness = 0.05 if number < 6 else 0.9
        waveform[start : start + len(click)] = loudness * click
    beats = track_beats(waveform, rate_hz=rate_hz)
    early = beats[beats < 2.7]
    assert len(early) >= 4
    distance = (early / period - (early / period).round()).abs() * period
    assert distance.max() < 0.06


def test_too_little_sound_has_no_beats():
    assert track_beats(torch.ones(100), rate_hz=16000).shape == (0,)


def test_stereo_is_refused():
    with pytest.raises(ValueError, match="not mono"):
        track_beats(torch.zeros(2, 16000), rate_hz=16000)


def test_known_beats_are_read(tmp_path):
    path = tmp_path / "song.json"
    path.write_text(json.dumps({"beats_seconds": [0, 0.5, 1.25], "bpm": 120}))
    assert read_known_beats(path).tolist() == [0, 0.5, 1.25]


@pytest.mark.parametrize(
    "text", ["", "[0.5]", '{"beats": [1]}', '{"beats_seconds": ["x"]}', '{"beats_seconds": 3}']
)
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "song.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"song.json: cannot be read as .*beats_seconds"):
        read_known_beats(path)


@pytest.mark.parametrize("times", ["[1, 0.5]", "[1, 1]", "[NaN]", "[0, Infinity]"])
def test_times_out_of_order_are_refused(tmp_path, times):
    path = tmp_path / "song.json"
    path.write_text('{"beats_seconds": ' + times + "}")
    with pytest.raises(ValueError, match="finite and ascending"):
        read_known_beats(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="gone.json"):
        read_known_beats(tmp_path / "gone.json")


def test_beats_are_cut_to_the_clip():
    beats = torch.tensor([0.5, 1.0, 10.3, 10.8, 11.3, 12.75], dtype=torch.float64)
    inside = beats_in_clip(beats, offset_seconds=10.3, duration_seconds=2.4)
    assert inside.tolist() == pytest.approx([0, 0.5, 1.0])
    assert beats_in_clip(beats, duration_seconds=1.0).tolist() == [0.5]


def entry(tmp_path, **fields):
    return ClipEntry(folder=tmp_path, file="clip.mp4", system="s", **fields)


def no_sound(path):
    raise AssertionError(f"{path} must not be read")


def test_truth_lies_beside_the_track_or_in_the_given_folder(tmp_path):
    (tmp_path / "song.json").write_text('{"beats_seconds": [1.0, 2.0]}')
    known = tmp_path / "known"
    known.mkdir()
    (known / "song.json").write_text('{"beats_seconds": [3.0]}')
    clip = entry(tmp_path, track="song.mp3", track_offset_seconds=0.75)
    beats = MusicBeats(no_sound, mode="truth")
    assert beats.source(clip) == ("truth", tmp_path / "song.json")
    assert beats.read(clip, duration_seconds=5.0).tolist() == [0.25, 1.25]
    elsewhere = MusicBeats(no_sound, mode="truth", folder=known)
    assert elsewhere.read(clip, duration_seconds=5.0).tolist() == [2.25]


def test_truth_of_a_clip_without_a_track_lies_beside_the_clip(tmp_path):
    (tmp_path / "clip.json").write_text('{"beats_seconds": [1.0]}')
    beats = MusicBeats(no_sound, mode="truth")
    assert beats.read(entry(tmp_path), duration_seconds=5.0).tolist() == [1.0]


def test_missing_truth_names_the_expected_file(tmp_path):
    with pytest.raises(ValueError, match=r"song\.json"):
        MusicBeats(no_sound, mode="truth").read(
            entry(tmp_path, track="song.mp3"), duration_seconds=5.0
        )


def test_the_whole_track_is_preferred_to_the_clip(tmp_path):
    beats = MusicBeats(no_sound)
    clip = entry(tmp_path, track="song.wav")
    assert beats.source(clip) == ("track", tmp_path / "song.wav")
    with pytest.raises(ValueError, match=r"clip.mp4: names the track song.wav for clip.mp4, which"):
        beats.read(clip, duration_seconds=5.0)
    (tmp_path / "song.wav").write_bytes(b"sound")
    assert beats.source(clip) == ("track", tmp_path / "song.wav")
    absolute = entry(tmp_path / "other", track=str(tmp_path / "song.wav"))
    assert beats.source(absolute) == ("track", tmp_path / "song.wav")
    assert beats.source(entry(tmp_path)) == ("clip", tmp_path / "clip.mp4")


def test_each_track_is_read_once(tmp_path):
    read = []

    def silence(path):
        read.append(path.name)
        return torch.zeros(10)

    (tmp_path / "song.wav").write_bytes(b"sound")
    beats = MusicBeats(silence)
    for offset in (0.0, 1.0, 2.0):
        clip = entry(tmp_path, track="song.wav", track_offset_seconds=offset)
        assert beats.read(clip, duration_seconds=2.0).shape == (0,)
    assert read == ["song.wav"]


def test_the_key_follows_everything_the_beats_depend_on(tmp_path):
    song = tmp_path / "song.wav"
    song.write_bytes(b"sound")
    clip = entry(tmp_path, track="song.wav")
    keys = [
        MusicBeats(no_sound).key(clip),
        MusicBeats(no_sound, tracker=LibrosaBeats(start_bpm=90.0)).key(clip),
        MusicBeats(no_sound, tracker=LibrosaBeats(tightness=10.0)).key(clip),
        MusicBeats(no_sound, mode="truth").key(clip),
        MusicBeats(no_sound).key(entry(tmp_path, track="song.wav", track_offset_seconds=1.0)),
    ]
    song.write_bytes(b"other sound")
    keys.append(MusicBeats(no_sound).key(clip))
    assert len({json.dumps(key) for key in keys}) == len(keys)
    song.write_bytes(b"sound")
    assert MusicBeats(no_sound).key(clip) == keys[0]


def scored(beats_seconds):
    return ScoredClip(
        frames=torch.zeros(30, 2, 2, 3, dtype=torch.uint8),
        fps=30.0,
        waveform=None,
        rate_hz=16000,
        name="clip.mp4",
        seed=0,
        beats_seconds=beats_seconds,
    )


def test_a_clip_takes_beats_given_found_on_demand_or_none():
    given = torch.tensor([-0.1, 0.2, 0.9, 1.0])
    assert scored(given).music_beats().tolist() == pytest.approx([0.2, 0.9])
    assert scored(lambda: given).music_beats().tolist() == pytest.approx([0.2, 0.9])
    with pytest.raises(ValueError, match=r"clip\.mp4: has no soundtrack"):
        scored(None).music_beats()
