"""Pieces of raw clips, decoded once and held in memory, for training the small parts."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datamodules.clips import CutSettings, RawClip
from datamodules.cutting import ClipDataset
from musicinfuser.clip_size import check_clip_size
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from small_world.data.base import PartDataModule


class FrameBatch(NamedTuple):
    """Short pieces of clips."""

    sample_index: tuple[int, ...]
    """Keys of every random draw for the samples."""
    frames: Tensor
    """``(B, T, H, W, 3)`` uint8."""


class Pieces(Dataset[tuple[int, Tensor]]):
    """Random pieces of held clips; source, clip and start follow from the sample index alone.

    Every source is drawn from as often, however many clips it has.
    """

    def __init__(self, clips: list[list[Tensor]], *, num_frames: int, seed: int) -> None:
        self.clips, self.num_frames, self.seed = clips, num_frames, seed

    def __len__(self) -> int:
        """Clips to draw from."""
        return sum(map(len, self.clips))

    def __getitem__(self, sample_index: int) -> tuple[int, Tensor]:
        """The sample index and ``(T, H, W, 3)`` uint8."""
        stream = generator(self.seed, sample_index, "piece of a clip")
        source = self.clips[int(torch.randint(len(self.clips), (), generator=stream))]
        clip = source[int(torch.randint(len(source), (), generator=stream))]
        start = int(torch.randint(len(clip) - self.num_frames + 1, (), generator=stream))
        return sample_index, clip[start : start + self.num_frames]


def collate_pieces(pieces: list[tuple[int, Tensor]]) -> FrameBatch:
    """Stack pieces."""
    return FrameBatch(tuple(i for i, _ in pieces), torch.stack([frames for _, frames in pieces]))


class FrameDataModule(PartDataModule):
    """Frames of the same datasets that the encode job reads, without their sound."""

    def __init__(
        self,
        sources: list[Callable[[CutSettings], ClipDataset]],
        *,
        cut: CutSettings,
        num_frames: int,
        batch_size: int,
        seed: int,
        max_clips: int | None = None,
        max_validation_clips: int = 32,
    ) -> None:
        """Set up; videos are decoded in `setup`.

        Args:
            sources: Datasets of raw clips, by class path.
            cut: How these clips are cut: size, rate, ...
            num_frames: Frames per piece, 6k + 1.
            batch_size: Pieces per process and batch.
            seed: Seed of the pieces.
            max_clips: At most so many training clips per source.
            max_validation_clips: At most so many held-out clips, whole.
        """
        super().__init__(batch_size=batch_size, collate=collate_pieces)
        check_clip_size(num_frames, 16, 16)
        self.sources, self.cut, self.num_frames, self.seed = sources, cut, num_frames, seed
        self.max_clips, self.max_validation_clips = max_clips, max_validation_clips
        self.validation_batch_size = 1  # clips may differ in length

    def setup(self, stage: str) -> None:
        """Decode the clips; unreadable ones are left out.

        Raises:
            ValueError: A folder that is missing, or no clip to train on or to validate with.
        """
        super().setup(stage)
        datasets = [source(self.cut) for source in self.sources]
        training = [c for c in (_decode(d, "train", self.max_clips) for d in datasets) if c]
        held_out = [c for d in datasets for c in _decode(d, "held_out", self.max_validation_clips)]
        if not training or not held_out:
            raise UserError(
                f"{sum(map(len, training))} training and {len(held_out)} held-out clips could be "
                "read; both are needed."
            )
        self.training_clips = training
        """A list per source."""
        self.training = Pieces(training, num_frames=self.num_frames, seed=self.seed)
        self.validation = list(enumerate(held_out[: self.max_validation_clips]))  # type: ignore


def _decode(dataset: ClipDataset, split: str, limit: int | None) -> list[Tensor]:
    indices = [i for i, spec in enumerate(dataset.clips) if spec.split == split][:limit]
    bar = tqdm(indices, desc=f"decoding {dataset.source} ({split})", disable=len(indices) < 50)
    clips = (dataset[i] for i in bar)
    return [clip.frames for clip in clips if isinstance(clip, RawClip)]
