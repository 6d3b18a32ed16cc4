"""Excerpts of generated music with its meter, for training the small audio encoder to find beats.

The pieces are composed for this alone: none of them plays in a small world's videos.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from musicinfuser.keyed_random import generator
from small_world.data.base import PartDataModule
from small_world.generator.music import STYLES, Piece, compose

RATE_HZ = 16_000
# wav2vec 2.0: a token every 20 ms, each from 25 ms of sound.
TOKEN_SECONDS, TOKEN_SPAN_SECONDS = 0.02, 0.025
MIN_BPM, MAX_BPM = 70.0, 145.0
# Cycles to follow, in beats: the beat, kick against snare, the bar.
CYCLES_BEATS = (1, 2, 4)


class MusicBatch(NamedTuple):
    """Excerpts and where in the meter each of their tokens lies."""

    sample_index: tuple[int, ...]
    waveforms: Tensor
    """``(B, num_samples)`` at 16 kHz."""
    meter: Tensor
    """``(B, num_tokens, len(CYCLES_BEATS))``: position within each cycle, in [0, 1)."""


class Excerpts(Dataset[tuple[int, Tensor, Tensor]]):
    """Random excerpts; piece and start follow from the sample index alone."""

    def __init__(self, pieces: list[Piece], *, num_samples: int, seed: int) -> None:
        self.pieces, self.num_samples, self.seed = pieces, num_samples, seed

    def __len__(self) -> int:
        """Pieces to draw from."""
        return len(self.pieces)

    def __getitem__(self, sample_index: int) -> tuple[int, Tensor, Tensor]:
        """Sample index, waveform ``(num_samples,)`` and meter ``(num_tokens, 3)``."""
        stream = generator(self.seed, sample_index, "excerpt")
        piece = self.pieces[int(torch.randint(len(self.pieces), (), generator=stream))]
        last = len(piece.beats_seconds) * piece.beat_seconds - self.num_samples / RATE_HZ
        start_seconds = torch.rand((), generator=stream).item() * last
        first = round(start_seconds * RATE_HZ)
        waveform = torch.from_numpy(piece.waveform[0, first : first + self.num_samples])
        return sample_index, waveform, meter_of(piece, first / RATE_HZ, self.num_samples)


def num_tokens(num_samples: int) -> int:
    """Tokens wav2vec 2.0 makes of so many samples: its windows of 400, 320 apart."""
    return (num_samples - 400) // 320 + 1


def meter_of(piece: Piece, start_seconds: float, num_samples: int) -> Tensor:
    """Where the middle of each token lies in each cycle, ``(num_tokens, 3)`` in [0, 1)."""
    centres = torch.arange(num_tokens(num_samples)) * TOKEN_SECONDS + TOKEN_SPAN_SECONDS / 2
    beats = (start_seconds + centres.double()) / piece.beat_seconds
    return torch.stack([(beats / cycle) % 1.0 for cycle in CYCLES_BEATS], dim=1).float()


def compose_pieces(num_pieces: int, *, name: str, seed: int) -> list[Piece]:
    """Pieces of all genres in turn, with tempi of their own."""
    genres, pieces = sorted(STYLES), []
    for number in tqdm(range(num_pieces), desc=f"composing ({name})", disable=num_pieces < 50):
        stream = generator(seed, number, f"tempo of {name}")
        bpm = MIN_BPM * math.pow(MAX_BPM / MIN_BPM, torch.rand((), generator=stream).item())
        genre = genres[number % len(genres)]
        pieces.append(compose(f"{name} {number}", genre=genre, bpm=bpm, seed=seed, rate_hz=RATE_HZ))
    return pieces


def collate_excerpts(excerpts: list[tuple[int, Tensor, Tensor]]) -> MusicBatch:
    """Stack excerpts."""
    indices, waveforms, meters = zip(*excerpts, strict=True)
    return MusicBatch(tuple(indices), torch.stack(waveforms), torch.stack(meters))


class MusicDataModule(PartDataModule):
    """Excerpts of composed pieces; those for validation are pieces of their own."""

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int,
        excerpt_seconds: float = 2.5,
        num_pieces: int = 600,
        num_validation_pieces: int = 60,
        num_validation_excerpts: int = 240,
    ) -> None:
        """Set up; music is composed in `setup`.

        Args:
            batch_size: Excerpts per process and batch.
            seed: Seed of pieces and excerpts.
            excerpt_seconds: Length; 2.5 s go with 73 frames.
            num_pieces: Pieces to train on.
            num_validation_pieces: Further pieces to validate with.
            num_validation_excerpts: Excerpts of those.
        """
        super().__init__(batch_size=batch_size, collate=collate_excerpts)
        self.seed = seed
        self.num_samples = round(excerpt_seconds * RATE_HZ)
        self.num_pieces, self.num_validation_pieces = num_pieces, num_validation_pieces
        self.num_validation_excerpts = num_validation_excerpts

    def setup(self, stage: str) -> None:
        """Compose."""
        super().setup(stage)
        options = {"num_samples": self.num_samples, "seed": self.seed}
        training = compose_pieces(self.num_pieces, name="training", seed=self.seed)
        held_out = compose_pieces(self.num_validation_pieces, name="validation", seed=self.seed)
        self.training = Excerpts(training, **options)
        self.validation = Excerpts(held_out, **options)

    def val_dataloader(self) -> DataLoader:
        """The same excerpts every time."""
        return DataLoader(
            self.validation,
            sampler=range(self.num_validation_excerpts),
            batch_size=self.batch_size,
            collate_fn=collate_excerpts,
        )
