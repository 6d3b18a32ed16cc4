import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.media.audio import read_audio, write_wav
from small_world.experiments import recorded_songs
from small_world.generator.songs import COLUMNS, TRAINING_SONGS, read_song_list

RATE_HZ = 16_000


def write_clicks(path: Path, *, bpm: float, first: float, seconds: float = 30.0) -> None:
    sound = np.zeros(round(seconds * RATE_HZ), np.float32)
    for beat in np.arange(first, seconds, 60 / bpm):
        sound[round(beat * RATE_HZ)] = 1.0
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, torch.from_numpy(sound), rate_hz=RATE_HZ)


def test_excerpts_keep_their_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three songs of clicks, and the times at which clicks are in their excerpts."""
    tempi = {"a": 90.0, "b": 120.0, "c": 150.0}
    with open(tmp_path / "songs.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for name, bpm in tempi.items():
            write_clicks(tmp_path / "music" / "deep" / f"{name}.wav", bpm=bpm, first=0.3)
            rows.writerow(["game-data", f"deep/{name}.wav", 7.0, bpm, 0.3])
    monkeypatch.setattr(recorded_songs, "LIST", tmp_path / "songs.csv")
    recorded_songs.main([str(tmp_path / "music"), str(tmp_path / "out")])
    names = sorted(path.stem for path in (tmp_path / "out/music").iterdir())
    assert names == ["00_a_0", "01_a_1", "02_b_0", "03_b_1", "04_c_0", "05_c_1"]
    for name in names:
        truth = json.loads((tmp_path / f"out/truth/{name}.json").read_text())
        sound = read_audio(tmp_path / f"out/music/{name}.wav", rate_hz=RATE_HZ)
        clicks = np.flatnonzero(np.abs(sound.numpy()).reshape(-1) > 0.25).astype(float) / RATE_HZ
        found = [clicks[np.abs(clicks - beat).argmin()] for beat in truth["beats_seconds"]]
        assert found == pytest.approx(truth["beats_seconds"], abs=0.001)
        assert len(truth["beats_seconds"]) == pytest.approx(14.5 * truth["bpm"] / 60, abs=1)
    lists = {
        kind: list(csv.DictReader(open(tmp_path / f"out/{kind}.csv")))
        for kind in ("own", "other", "nothing")
    }
    assert [row["track"] for row in lists["own"]] == [f"music/{name}.wav" for name in names]
    assert {row["track_offset_seconds"] for row in lists["own"]} == {"6.0"}
    for row in lists["other"]:
        assert row["heard"][9] != row["track"][9]
    assert sorted(row["heard"] for row in lists["other"]) == [f"music/{n}.wav" for n in names]
    assert {row["heard"] for row in lists["nothing"]} == {"nothing"}


def test_a_missing_song_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"27 of 27 songs .*battle_theme.*Debian's supertux-data"):
        recorded_songs.make_test_set(tmp_path, tmp_path / "out")


def test_the_list_to_learn_from_is_read_whole(tmp_path: Path) -> None:
    rows = list(csv.DictReader(TRAINING_SONGS.open()))
    for row in rows:
        path = tmp_path / row["package"] / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    songs = read_song_list(TRAINING_SONGS, tmp_path)
    assert len(songs) == len(rows) > 100
    assert all(60 < song.bpm < 220 and song.seconds > 20 for song in songs)
    assert {song.beats_per_bar for song in songs} == {3, 4}


def test_no_package_is_both_learned_from_and_tested_with() -> None:
    learned, tested = (
        {row["package"] for row in csv.DictReader(path.open())}
        for path in (TRAINING_SONGS, recorded_songs.LIST)
    )
    assert len(learned) > 20 and not learned & tested
