import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.media.audio import write_wav
from small_world.generator import songs
from small_world.generator.recipe import SmallWorldRecipe

RATE_HZ = 16_000


@pytest.fixture
def music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two songs of clicks, the first of four louder; the second one is fast."""
    with open(tmp_path / "songs.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*songs.COLUMNS, *songs.LENGTH])
        for name, bpm in (("a", 100.0), ("b", 172.0)):
            sound = np.zeros(30 * RATE_HZ, np.float32)
            for number, beat in enumerate(np.arange(1.7, 29.9, 60 / bpm)):
                sound[round(beat * RATE_HZ)] = 0.4 if number % 4 else 0.9
            write_wav(tmp_path / f"{name}.wav", torch.from_numpy(sound), rate_hz=RATE_HZ)
            rows.writerow(["game", f"{name}.wav", 1.5, bpm, 1.7, 28, 4])
    monkeypatch.setattr(songs, "TRAINING_SONGS", tmp_path / "songs.csv")
    songs._training_songs.cache_clear()
    return str(tmp_path)


def test_a_song_is_played_at_the_tempo_of_the_dance(music: str) -> None:
    recipe = SmallWorldRecipe(songs=music, audio_rate_hz=RATE_HZ, audio_channels=2)
    heights = set()
    for number in range(6):
        piece = recipe.compose(f"piece {number}", genre="BR", bpm=93.0)
        assert piece.bpm == 93 and piece.waveform.shape == (2, round(70 * 60 / 93 * RATE_HZ))
        sound = np.abs(piece.waveform[0])
        for beat in piece.beats_seconds[1:]:
            at = round(beat * RATE_HZ)
            # Where the song begins again its bars may be a few samples off.
            near = sound[at - 800 : at + 800]
            assert abs(int(near.argmax()) - 800) <= 16
        at = round(piece.beats_seconds[2] * RATE_HZ)
        heights.add(round(float(sound[at - 20 : at + 20].max()), 2))
    # Of the fast song every second beat is danced to, so that the third one is a downbeat.
    assert len(heights) == 2


def test_songs_and_a_soundfont_are_refused_together(music: str) -> None:
    with pytest.raises(UserError, match="songs and soundfont are both given"):
        SmallWorldRecipe(songs=music, soundfont="a.sf2")
