"""CacheWriter: what the encode job makes goes to disk, and what it skipped is listed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import BasePredictionWriter

from datamodules.clips import SkippedClip
from datamodules.encoding import EncodingDataModule
from datamodules.report import write_report
from datamodules.summary import left_out_by_choice
from lightning_modules.encoding import ClipEncoder, EncodedCaption, EncodedClip
from musicinfuser.atomic_files import write_json_lines
from musicinfuser.errors import printable
from musicinfuser.media.latents import ClipHeader, clip_path, write_caption, write_clip

MOST_LINES = 20
"""Of what was skipped; the rest is in the list only."""


class CacheWriter(BasePredictionWriter):
    """Writes one file per clip and per caption, atomically, and a report at the end."""

    def __init__(self, pictures_per_group: int = 12) -> None:
        """Set up.

        Args:
            pictures_per_group: Clips the page of thumbnails shows of each source, genre, camera and
                split, and files of each reason for leaving them out; 0 makes no page.
        """
        super().__init__(write_interval="batch")
        self.pictures_per_group = pictures_per_group
        self.num_written = 0
        self.num_padded = 0
        self.skipped: list[SkippedClip] = []

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the encoded captions and clips of a batch, remember the skipped ones."""
        cache_dir = _data(trainer).cache_dir
        assert isinstance(pl_module, ClipEncoder)
        for result in prediction:
            if isinstance(result, SkippedClip):
                self.skipped.append(result)
            elif isinstance(result, EncodedCaption):
                write_caption(cache_dir, result.text, result.features)
            else:
                self._write(result, cache_dir, pl_module)

    def _write(self, clip: EncodedClip, cache_dir: str, module: ClipEncoder) -> None:
        spec = clip.spec
        header = ClipHeader(
            path=clip_path(cache_dir, spec.source, spec.clip_id),
            recipe=module.recipe.of_size(spec.height, spec.width),
            source=spec.source,
            clip_id=spec.clip_id,
            caption=spec.caption,
            base_caption=spec.base_caption,
            music=spec.music,
            split=spec.split,
            attributes=spec.attributes | spec.cut,
        )
        write_clip(
            header,
            latent_mean=clip.latent_mean,
            latent_logvar=clip.latent_logvar,
            audio=clip.audio,
        )
        self.num_written += 1
        self.num_padded += "audio_padded_seconds" in spec.attributes

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """List what was left out and report on the cache, also if there was nothing to do."""
        data = _data(trainer)
        rows: list[dict[str, Any]] = [_row(clip) for clip in self.skipped]
        if trainer.is_global_zero:
            before = [_row(clip) for dataset in data.datasets for clip in dataset.skipped]
            rows = [*before, *rows, *left_out_by_choice(data.datasets)]
        path = Path(data.cache_dir, f"skipped_rank{trainer.global_rank}.jsonl")
        write_json_lines(path, rows)
        print(f"encoded {self.num_written} clips, {data.num_found} were there already.")
        print(f"{self.num_padded} of the encoded clips outlast their sound; silence was added.")
        named = [row for row in rows if "file" in row]
        for row in named[:MOST_LINES]:
            print(f"skipped {row.get('clip_id') or row['file']}: {row['reason']}")
        if named:
            print(f"{len(named)} skipped in all: {path}")
        # The report is on what all processes made.
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            print(f"{data.list_outdated()} clips were encoded anew: their videos have changed.")
            for note in data.notes():
                print(note)
            folder = Path(data.cache_dir, "report")
            print(write_report(data.cache_dir, folder, pictures_per_group=self.pictures_per_group))
            print(f"the same with thumbnails: {folder}")


def _data(trainer: L.Trainer) -> EncodingDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


def _row(clip: SkippedClip) -> dict[str, str]:
    row = {"source": clip.source, "file": printable(clip.path), "reason": printable(clip.reason)}
    return row | ({"clip_id": clip.clip_id} if clip.clip_id else {})
