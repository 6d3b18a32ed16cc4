"""Recorded songs whose beats are known, as lists name them.

A list is a csv of packages of Debian, files in them, and the beats of a part of each that keeps
its tempo, as madmom 0.17 found them (RNN and DBN) and a straight line fits them. What the audio
encoder learns from is training_songs.csv beside this file; experiments/recorded_songs.csv has songs
of other packages, to test with.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from musicinfuser import keyed_random
from musicinfuser.errors import UserError
from musicinfuser.label_files import read_csv
from musicinfuser.media.audio import read_audio
from musicinfuser.media.librosa_import import import_librosa
from small_world.generator.music import BEATS_PER_BAR, NUM_BEATS, TAIL_BEATS, Piece

TRAINING_SONGS = Path(__file__).with_name("training_songs.csv")
COLUMNS = ("package", "file", "start_seconds", "bpm", "first_beat_seconds")
LENGTH = ("seconds", "beats_per_bar")
FASTEST_BPM = 148.0
"""Dancers take every second beat of faster music."""
NEAREST = 12
"""A piece of a given tempo is one of so many songs whose tempi are nearest."""


@dataclass(frozen=True)
class Song:
    """A part of a recording, and its beats; all times on the file's clock."""

    path: Path
    start_seconds: float
    bpm: float
    first_beat_seconds: float
    """A downbeat, in lists to train with."""
    seconds: float
    """Length of the part; 0 where the list does not say."""
    beats_per_bar: int

    @property
    def danced_bpm(self) -> float:
        """Tempo of the beats to dance to."""
        return self.bpm / 2 if self.bpm > FASTEST_BPM else self.bpm

    def beats_seconds(self, start: float, duration: float) -> NDArray[np.float64]:
        """Beats within a span of the file, on the clock of that span."""
        first = (self.first_beat_seconds - start) % (60 / self.bpm)
        return np.arange(first, duration, 60 / self.bpm)


@functools.lru_cache(maxsize=4)
def song_piece(
    name: str, *, genre: str, bpm: float, seed: int, music: str, rate_hz: int = 16000,
    num_channels: int = 1,
) -> Piece:  # fmt: skip
    """A piece of a recorded song, played at the speed that gives it a tempo.

    Whole bars of the song are repeated until it is as long as other pieces.

    Args:
        name: What tells this piece from others.
        genre: Of the dance; the song is any.
        bpm: Tempo in beats per minute.
        seed: Seed of the world.
        music: Folder with the packages of training_songs.csv.
        rate_hz: Sample rate.
        num_channels: 1 or 2, both the same.
    """
    draw = np.random.default_rng(keyed_random.key(seed, name, "song"))
    songs = [s for s in _training_songs(music) if s.beats_per_bar == BEATS_PER_BAR]
    songs.sort(key=lambda song: abs(np.log(song.danced_bpm / bpm)))
    song = songs[int(draw.integers(min(NEAREST, len(songs))))]
    bar = BEATS_PER_BAR * 60 / song.danced_bpm
    zero = song.first_beat_seconds - song.start_seconds
    num_bars = max(int((song.seconds - zero) / bar), 1)
    sound = read_audio(
        song.path, rate_hz=rate_hz,
        start_seconds=song.first_beat_seconds, duration_seconds=num_bars * bar,
    ).numpy()  # fmt: skip
    speed = bpm / song.danced_bpm
    sound = import_librosa().resample(sound, orig_sr=rate_hz * speed, target_sr=rate_hz)
    num_samples = round((NUM_BEATS + TAIL_BEATS) * 60 / bpm * rate_hz)
    whole = np.resize(sound, num_samples).astype(np.float32)
    return Piece(name, genre, bpm, rate_hz, np.stack([whole] * num_channels))


@functools.lru_cache(maxsize=1)
def _training_songs(music: str) -> list[Song]:
    return read_song_list(TRAINING_SONGS, music)


def read_song_list(path: str | Path, music: str | Path) -> list[Song]:
    """The songs of a list.

    Args:
        path: The list.
        music: Folder in which the packages are unpacked (``apt-get download NAME``,
            ``dpkg -x NAME*.deb MUSIC``).

    Raises:
        UserError: A song is not there.
    """
    rows = [row for _, row in read_csv(path, required=COLUMNS, optional=LENGTH)]
    found = {row["file"]: next(Path(music).rglob(row["file"]), None) for row in rows}
    if missing := [row for row in rows if found[row["file"]] is None]:
        first = missing[0]
        raise UserError(
            f"{len(missing)} of {len(rows)} songs are not in {music}, {first['file']} first; "
            f"unpack Debian's {first['package']} there."
        )
    return [
        Song(
            path=found[row["file"]] or Path(),
            start_seconds=float(row["start_seconds"]),
            bpm=float(row["bpm"]),
            first_beat_seconds=float(row["first_beat_seconds"]),
            seconds=float(row.get("seconds") or 0),
            beats_per_bar=int(row.get("beats_per_bar") or BEATS_PER_BAR),
        )
        for row in rows
    ]
