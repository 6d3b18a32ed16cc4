"""Excerpts of music with known beats, for training the small audio encoder to find them.

Four kinds: the generator's synthetic pieces; played by sampled instruments, composed ones and
excerpts of what people wrote; and recorded songs. Excerpts are changed as recordings are. None of
these pieces plays in a small world's videos.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import AutoFeatureExtractor

from musicinfuser import keyed_random
from musicinfuser.keyed_random import generator
from musicinfuser.media.audio import read_audio
from musicinfuser.media.librosa_import import import_librosa
from small_world.data.base import PartDataModule
from small_world.generator.band import SampledInstruments, Score, compose_score
from small_world.generator.midi_files import excerpt, read_midi_files
from small_world.generator.music import BEATS_PER_BAR, STYLES, compose
from small_world.generator.songs import (
    FASTEST_BPM,
    TRAINING_SONGS,
    Song,
    read_song_list,
)
from small_world.generator.sound_changes import change_sound

RATE_HZ = 16_000
# A token every 20 ms; wav2vec 2.0 makes each of 25 ms of sound, w2v-BERT of 35 ms.
TOKEN_HOP, WAV2VEC_WINDOW, BERT_WINDOW = 320, 400, 560
MIN_BPM, MAX_BPM = 70.0, 145.0

NUM_BARS = 10
WRITTEN_SECONDS = 24.0
"""Length of an excerpt of a written piece, and of a recorded song."""
SONG_SPEED = 0.22
"""Recorded songs are played up to so much faster or slower (logarithm of the speed)."""
OTHER_SPEED = 0.4
"""Share of pieces of sampled instruments that are played at another speed."""
CHANGED = 0.75
"""Share of training excerpts that are changed as recordings are, where soundfonts are given."""
# Cycles to follow, in beats: the beat, kick against snare, the bar.
CYCLES_BEATS = (1, 2, 4)
LENGTHS = ((1.0, 0.25), (2.0, 0.25), (4.0, 0.3), (6.0, 0.2))
"""Lengths of training excerpts, as multiples of the given one, and their shares."""


@dataclass(frozen=True, eq=False)
class BeatPiece:
    """Music and the beats to dance to; its clock starts at the first one."""

    samples: NDArray[np.int16]
    """``(S,)`` at 16 kHz."""
    beats_seconds: NDArray[np.float64]
    beats_per_bar: int


class MusicBatch(NamedTuple):
    """Excerpts and where in the meter each of their tokens lies."""

    sample_index: tuple[int, ...]
    waveforms: Tensor
    """``(B, num_samples)`` at 16 kHz."""
    meter: Tensor
    """``(B, num_tokens, len(CYCLES_BEATS))``: position within each cycle, in [0, 1); NaN where the
    music has no such cycle."""
    features: Tensor | None = None
    """What the encoder's feature extractor makes of the waveforms, if it was asked to."""


class Excerpts(Dataset[tuple[int, Tensor, Tensor]]):
    """Random excerpts; piece, start and changes follow from the sample index alone.

    Args:
        pieces: What to cut from.
        num_samples: Length of an excerpt.
        seed: Seed of all draws.
        same_length: Samples in a row that share a longer length, drawn by `LENGTHS`; 0: all have
            the given one.
        changed: Share of excerpts changed as recordings are.
        window: Samples that a token is made of.
    """

    def __init__(
        self,
        pieces: list[BeatPiece],
        *,
        num_samples: int,
        seed: int,
        same_length: int = 0,
        changed: float = 0.0,
        window: int = WAV2VEC_WINDOW,
    ) -> None:
        self.pieces, self.num_samples, self.seed = pieces, num_samples, seed
        self.same_length, self.changed, self.window = same_length, changed, window

    def __len__(self) -> int:
        """Pieces to draw from."""
        return len(self.pieces)

    def __getitem__(self, sample_index: int) -> tuple[int, Tensor, Tensor]:
        """Sample index, waveform ``(num_samples,)`` and meter ``(num_tokens, 3)``."""
        stream = generator(self.seed, sample_index, "excerpt")
        piece = self.pieces[int(torch.randint(len(self.pieces), (), generator=stream))]
        num_samples = self._num_samples(sample_index)
        last = piece.beats_seconds[-1] - num_samples / RATE_HZ
        first = max(round(torch.rand((), generator=stream).item() * last * RATE_HZ), 0)
        cut = np.zeros(num_samples, np.float32)
        found = piece.samples[first : first + num_samples]
        cut[: len(found)] = found / np.float32(32767)
        if torch.rand((), generator=stream).item() < self.changed:
            key = keyed_random.key(self.seed, sample_index, "changes of sound")
            cut = change_sound(cut, RATE_HZ, np.random.default_rng(key))
        meter = meter_of(piece, first / RATE_HZ, num_samples, self.window)
        return sample_index, torch.from_numpy(cut), meter

    def _num_samples(self, sample_index: int) -> int:
        if not self.same_length:
            return self.num_samples
        group = sample_index // self.same_length
        drawn = torch.rand((), generator=generator(self.seed, group, "length")).item()
        for times, share in LENGTHS:
            if (drawn := drawn - share) < 0:
                return round(times * self.num_samples)
        return self.num_samples


def num_tokens(num_samples: int, window: int = WAV2VEC_WINDOW) -> int:
    """Tokens an encoder makes of so many samples: one every 320, each of ``window``."""
    return (num_samples - window) // TOKEN_HOP + 1


def meter_of(
    piece: BeatPiece, start_seconds: float, num_samples: int, window: int = WAV2VEC_WINDOW
) -> Tensor:
    """Where the middle of each token lies in each cycle, ``(num_tokens, 3)`` in [0, 1) or NaN."""
    centres = (np.arange(num_tokens(num_samples, window)) * TOKEN_HOP + window / 2) / RATE_HZ
    at = np.interp(
        start_seconds + centres, piece.beats_seconds, np.arange(len(piece.beats_seconds))
    )
    cycles = [
        (at / cycle) % 1.0 if piece.beats_per_bar % cycle == 0 else np.full(len(at), np.nan)
        for cycle in CYCLES_BEATS
    ]
    return torch.from_numpy(np.stack(cycles, axis=1)).float()


def compose_pieces(num_pieces: int, *, name: str, seed: int) -> list[BeatPiece]:
    """Synthetic pieces of all genres in turn, with tempi of their own."""
    genres, pieces = sorted(STYLES), []
    for number in tqdm(range(num_pieces), desc=f"composing ({name})", disable=num_pieces < 50):
        stream = generator(seed, number, f"tempo of {name}")
        bpm = MIN_BPM * math.pow(MAX_BPM / MIN_BPM, torch.rand((), generator=stream).item())
        genre = genres[number % len(genres)]
        made = compose(f"{name} {number}", genre=genre, bpm=bpm, seed=seed, rate_hz=RATE_HZ)
        beats = np.arange(len(made.beats_seconds) + 1, dtype=np.float64) * made.beat_seconds
        pieces.append(BeatPiece(_stored(made.waveform[0]), beats, BEATS_PER_BAR))
    return pieces


def play_pieces(
    num_pieces: int,
    *,
    name: str,
    seed: int,
    soundfonts: Sequence[str | Path],
    written: Sequence[Score] = (),
) -> list[BeatPiece]:
    """Pieces of sampled instruments, by the soundfonts in turn; of fast music every second beat.

    Args:
        num_pieces: How many.
        name: What tells them from others.
        seed: Of all draws.
        soundfonts: To play with.
        written: Pieces to play excerpts of; without any they are composed.
    """
    bands = [SampledInstruments(soundfont, rate_hz=RATE_HZ) for soundfont in soundfonts]
    pieces = []
    for number in tqdm(range(num_pieces), desc=f"playing ({name})", disable=num_pieces < 50):
        draw = np.random.default_rng(keyed_random.key(seed, number, f"playing of {name}"))
        band = bands[int(draw.integers(len(bands)))]
        if written:
            score = written[int(draw.integers(len(written)))]
            score = excerpt(score, draw, seconds=WRITTEN_SECONDS)
        else:
            score = compose_score(f"{name} {number}", seed=seed, num_bars=NUM_BARS)
        sound, beats, per_bar = band.play(score), score.beats_seconds, score.beats_per_bar
        bpm = score.bpm
        if draw.random() < OTHER_SPEED:
            # Played faster or slower as a record is, which changes the pitch of drums too.
            speed = float(np.exp(draw.uniform(-0.15, 0.15)))
            sound = import_librosa().resample(sound, orig_sr=RATE_HZ * speed, target_sr=RATE_HZ)
            beats, bpm = beats / speed, bpm * speed
        pieces.append(_piece(sound, beats, per_bar, bpm))
    return pieces


def cut_songs(num_pieces: int, *, seed: int, songs: Sequence[Song]) -> list[BeatPiece]:
    """Pieces of recorded songs, faster or slower; of fast music every second beat."""
    sounds: dict[int, NDArray[np.float32]] = {}
    pieces = []
    for number in tqdm(range(num_pieces), desc="cutting songs", disable=num_pieces < 50):
        draw = np.random.default_rng(keyed_random.key(seed, number, "cutting of songs"))
        chosen = int(draw.integers(len(songs)))
        song, speed = songs[chosen], float(np.exp(draw.uniform(-SONG_SPEED, SONG_SPEED)))
        if chosen not in sounds:
            sounds[chosen] = read_audio(
                song.path, rate_hz=RATE_HZ,
                start_seconds=song.start_seconds, duration_seconds=song.seconds,
            ).numpy()  # fmt: skip
        # A piece begins with a bar.
        bar = song.beats_per_bar * 60 / song.bpm
        zero = song.first_beat_seconds - song.start_seconds
        num_bars = int((song.seconds - zero - WRITTEN_SECONDS * speed) / bar)
        first = round((zero + bar * int(draw.integers(max(num_bars, 0) + 1))) * RATE_HZ)
        cut = sounds[chosen][first : first + round(WRITTEN_SECONDS * speed * RATE_HZ)]
        cut = import_librosa().resample(cut, orig_sr=RATE_HZ * speed, target_sr=RATE_HZ)
        length = speed * len(cut) / RATE_HZ
        beats = song.beats_seconds(song.first_beat_seconds, length) / speed
        pieces.append(_piece(cut, beats, song.beats_per_bar, song.bpm * speed))
    return pieces


def _piece(
    sound: NDArray[np.float32], beats: NDArray[np.float64], beats_per_bar: int, bpm: float
) -> BeatPiece:
    """A piece to dance to; of fast music every second beat counts."""
    if bpm > FASTEST_BPM:
        beats, beats_per_bar = beats[::2], beats_per_bar // 2
    return BeatPiece(_stored(sound), beats, beats_per_bar)


def _stored(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    return (np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def collate_excerpts(
    excerpts: list[tuple[int, Tensor, Tensor]], extractor: Callable[..., Any] | None = None
) -> MusicBatch:
    """Stack excerpts, with what a feature extractor of transformers makes of them."""
    indices, waveforms, meters = zip(*excerpts, strict=True)
    features = None
    if extractor is not None:
        sounds = [waveform.numpy() for waveform in waveforms]
        made = extractor(sounds, sampling_rate=RATE_HZ, return_tensors="pt")
        features = made[extractor.model_input_names[0]]  # type: ignore[attr-defined]
    return MusicBatch(tuple(indices), torch.stack(waveforms), torch.stack(meters), features)


class MusicDataModule(PartDataModule):
    """Excerpts of composed pieces; those for validation are pieces of their own."""

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int,
        extractor: str | None = None,
        soundfonts: Sequence[str] = (),
        midi: str | None = None,
        songs: str | None = None,
        excerpt_seconds: float = 2.5,
        num_pieces: int = 600,
        num_played_pieces: int = 0,
        num_written_pieces: int = 0,
        num_song_pieces: int = 0,
        num_validation_pieces: int = 60,
        num_validation_excerpts: int = 240,
        num_workers: int = 0,
    ) -> None:
        """Set up; music is composed in `setup`.

        Args:
            batch_size: Excerpts per process and batch.
            seed: Seed of pieces and excerpts.
            extractor: Folder with the ``preprocessor_config.json`` of the encoder's feature
                extractor; None gives waveforms only.
            soundfonts: Files (sf2 or sf3) to play pieces with; none: synthetic pieces only.
            midi: Folder with MIDI files, of which ``num_written_pieces`` excerpts are played.
            songs: Folder with the packages that training_songs.csv names, of whose songs
                ``num_song_pieces`` parts are cut.
            excerpt_seconds: Length; 2.5 s go with 73 frames. With soundfonts some batches have
                a multiple of it, by `LENGTHS`, since videos may be longer.
            num_pieces: Synthetic pieces to train on.
            num_played_pieces: Pieces of sampled instruments to train on.
            num_written_pieces: Excerpts of MIDI files to train on; none are validated with.
            num_song_pieces: Parts of recorded songs to train on; none are validated with.
            num_validation_pieces: Further pieces of each kind to validate with.
            num_validation_excerpts: Excerpts of those.
            num_workers: Processes that make excerpts.
        """
        extracted = AutoFeatureExtractor.from_pretrained(extractor) if extractor else None
        collate = functools.partial(collate_excerpts, extractor=extracted)
        super().__init__(batch_size=batch_size, collate=collate, num_workers=num_workers)
        self.seed, self.soundfonts, self.midi, self.songs = seed, soundfonts, midi, songs
        self.window = BERT_WINDOW if hasattr(extracted, "stride") else WAV2VEC_WINDOW
        self.num_samples = round(excerpt_seconds * RATE_HZ)
        self.num_pieces, self.num_played_pieces = num_pieces, num_played_pieces
        self.num_written_pieces, self.num_song_pieces = num_written_pieces, num_song_pieces
        self.num_validation_pieces = num_validation_pieces
        self.num_validation_excerpts = num_validation_excerpts

    def setup(self, stage: str) -> None:
        """Compose."""
        super().setup(stage)
        training = self._pieces("training", self.num_pieces, self.num_played_pieces)
        if self.midi and self.num_written_pieces:
            training += play_pieces(
                self.num_written_pieces, name="written", seed=self.seed,
                soundfonts=self.soundfonts, written=read_midi_files(self.midi),
            )  # fmt: skip
        if self.songs and self.num_song_pieces:
            songs = read_song_list(TRAINING_SONGS, self.songs)
            training += cut_songs(self.num_song_pieces, seed=self.seed, songs=songs)
        num_held_out = self.num_validation_pieces
        held_out = self._pieces("validation", num_held_out, num_held_out)
        make = functools.partial(
            Excerpts, num_samples=self.num_samples, seed=self.seed, window=self.window
        )
        self.training, self.validation = make(training), make(held_out)
        if self.soundfonts:
            self.training.same_length, self.training.changed = self.batch_size, CHANGED

    def _pieces(self, name: str, num_synthetic: int, num_played: int) -> list[BeatPiece]:
        pieces = compose_pieces(num_synthetic, name=name, seed=self.seed)
        if not self.soundfonts:
            return pieces
        return pieces + play_pieces(
            num_played, name=name, seed=self.seed, soundfonts=self.soundfonts
        )

    def val_dataloader(self) -> DataLoader:
        """The same excerpts every time."""
        return DataLoader(
            self.validation,
            sampler=range(self.num_validation_excerpts),
            batch_size=self.batch_size,
            collate_fn=self.collate,
        )
