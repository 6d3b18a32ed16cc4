import json

import pytest
import torch

from dance_eval.metrics.beat_trackers import BEAT_RATE_HZ, LibrosaBeats
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.music_beats import (
    MusicBeats,
    known_bpm,
    tempo_disagreements,
)
from evaluate import main
from musicinfuser.media.audio import write_wav
from tests.dancing_square import click_track
from tests.scored_dances import write_dance

SECONDS = 12.0


def track_beats(waveform, *, rate_hz, known_bpm=None, **settings):
    return LibrosaBeats(**settings)(waveform, rate_hz=rate_hz, known_bpm=known_bpm).seconds


def clicks(bpm):
    beats = [0.1 + 60 / bpm * k for k in range(int((SECONDS - 0.2) * bpm / 60))]
    return beats, click_track(beats, duration_seconds=SECONDS, rate_hz=BEAT_RATE_HZ)


@pytest.mark.parametrize(
    ("file", "track", "bpm", "expected"),
    [
        ("a.mp4", "music/mBR0.wav", None, 80),
        ("a.mp4", "mHO5.wav", None, 135),
        ("a.mp4", "mBR0_tempo_0.75.wav", None, 60),
        ("a.mp4", "tempo_1.25/mWA5.wav", None, 162.5),
        ("gBR_sBM_c01_d04_mBR0_ch01.mp4", None, None, 80),
        ("gBR_sBM_c01_d04_mBR0_ch01.mp4", "song.wav", None, None),
        ("a.mp4", "mBR0_to_mHO5.wav", None, None),
        ("a.mp4", "amBR0.wav", None, None),
        ("a.mp4", "mBR0.wav", 77.5, 77.5),
    ],
)
def test_lists_and_names_say_the_tempo(tmp_path, file, track, bpm, expected):
    assert known_bpm(ClipEntry(tmp_path, file, "ours", track=track, bpm=bpm)) == expected


@pytest.mark.parametrize("bpm", [62, 175, 190])
def test_a_known_tempo_is_the_prior(bpm):
    beats, waveform = clicks(bpm)
    found = track_beats(waveform, rate_hz=BEAT_RATE_HZ, known_bpm=bpm)
    assert 60 / float(found.diff().median()) == pytest.approx(bpm, rel=0.04)
    gaps = (torch.tensor(beats)[:, None] - found).abs().amin(dim=1)
    assert float(gaps.max()) < 0.05


@pytest.mark.parametrize("track", ["mBR0.wav", None])
def test_a_list_may_lie_in_the_folder_that_says_the_tempo(tmp_path, track):
    folder = tmp_path / "tempo_0.75"
    folder.mkdir()
    (folder / "mBR0.wav").touch()
    entry = ClipEntry(folder, "gBR_sBM_c01_d04_mBR0_ch01.mp4", "ours", track)
    assert known_bpm(entry) == 60
    (tmp_path / "mBR0.wav").touch()
    assert known_bpm(ClipEntry(folder, "x.mp4", "ours", str(tmp_path / "mBR0.wav"))) == 80


def test_without_it_librosa_follows_fast_music_at_half_its_tempo():
    found = track_beats(clicks(175)[1], rate_hz=BEAT_RATE_HZ, tempo="librosa")
    assert 60 / float(found.diff().median()) == pytest.approx(175 / 2, rel=0.04)


def test_the_key_knows_whether_the_tempo_was_told(tmp_path):
    def key(**options):
        entry = ClipEntry(tmp_path, "a.mp4", "ours", track="mBR0.wav")
        return MusicBeats(lambda path: None, **options).key(entry)

    assert key() != key(use_known_tempo=False)
    assert key(mode="truth") == key(mode="truth", use_known_tempo=False)


def test_another_tempo_is_named_once_per_file():
    def record(file, found, known):
        return {"file": "a.mp4", "beats_file": file, "music_bpm": found, "known_bpm": known}

    records = [record("m/a.wav", 124.1, 62.0)] * 3 + [record("m/b.wav", 100.0, 96.0)]
    assert tempo_disagreements(records) == [
        "Beats are at another tempo than the known one in 1 of 2 files: a.wav at 124 bpm, known 62."
    ]
    assert tempo_disagreements(records[3:]) == tempo_disagreements([{"file": "a.mp4"}]) == []


def test_the_tempo_of_each_clip_is_kept_and_compared(tmp_path, capsys):
    folder = tmp_path / "ours"
    write_dance(folder / "a.mp4", phase_seconds=0.1)
    write_wav(tmp_path / "song.wav", clicks(175)[1], rate_hz=BEAT_RATE_HZ)
    output = tmp_path / "metrics.json"

    def score(*options):
        main(["score", str(folder), f"--output={output}", *options])
        [clip] = json.loads(output.read_text())["clips"]
        return clip["music_bpm"], clip["known_bpm"], capsys.readouterr().out

    (folder / "clips.csv").write_text("file,system,track,bpm\na.mp4,ours,../song.wav,175\n")
    for _ in range(2):  # scored, and taken from the file
        found, known, printed = score()
        assert found == pytest.approx(175, rel=0.04) and known == 175
        assert "another tempo" not in printed
    found, _, printed = score("--known_tempo=false", "--beat_tracker=aistpp")
    assert found == pytest.approx(87.5, rel=0.04)
    assert "in 1 of 1 files: song.wav at 88 bpm, known 175." in printed
    assert "starts from in 1 of 1 files: song.wav at 88 bpm or 1" in printed
