"""CacheWriter: what the encode job makes goes to disk, and what it skipped is listed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import BasePredictionWriter
from tqdm import tqdm

from musicinfuser.atomic_files import write_json_lines
from musicinfuser.errors import printable
from musicinfuser.media.latents import ClipHeader, clip_path, write_caption
from musicinfuser.media.latents import write_clip as write_clip_file

if TYPE_CHECKING:
    from datamodules.encoding import EncodingDataModule
    from lightning_modules.encoding import ClipEncoder, EncodedClip

MOST_LINES = 20
"""Of what was skipped; the rest is in the list only."""


class CacheWriter(BasePredictionWriter):
    """Writes one file per clip and per caption, whole or not at all, and a report at the end."""

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
        self.skipped: list[dict[str, str]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Encode this rank's share of the captions that are not stored, before any clip."""
        data: EncodingDataModule = trainer.datamodule  # type: ignore[attr-defined]
        module: ClipEncoder = pl_module  # type: ignore[assignment]
        captions = data.missing_captions()
        if captions:
            features = module.encoders.iterate_captions(
                captions, device=trainer.strategy.root_device
            )
            progress = tqdm(captions, desc="captions", disable=not trainer.is_global_zero)
            for caption, encoded in zip(progress, features, strict=True):
                write_caption(data.cache_dir, caption, encoded)

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
        """Write the encoded clips of a batch, remember the skipped ones."""
        data: EncodingDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for result in prediction:
            if hasattr(result, "reason"):
                self.skipped.append(_skip(result))
            else:
                self._write(result, pl_module, data)  # type: ignore[arg-type]
                self.num_written += 1

    def _write(
        self, clip: "EncodedClip", module: "ClipEncoder", data: "EncodingDataModule"
    ) -> None:
        spec = clip.spec
        self.num_padded += "audio_padded_seconds" in spec.attributes
        header = ClipHeader(
            path=clip_path(data.cache_dir, spec.source, spec.clip_id),
            recipe=data.recipe_of(spec, module),
            source=spec.source,
            clip_id=spec.clip_id,
            caption=spec.caption,
            base_caption=spec.base_caption,
            music=spec.music,
            split=spec.split,
            attributes=spec.attributes | data.cut_description(spec),
        )
        write_clip_file(
            header,
            latent_mean=clip.latent_mean,
            latent_logvar=clip.latent_logvar,
            audio=clip.audio,
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """List what was left out and report on the cache, also if there was nothing to do."""
        data: EncodingDataModule = trainer.datamodule  # type: ignore[attr-defined]
        rows: list[dict[str, Any]] = [*self.skipped]
        if trainer.is_global_zero:
            rows = [*map(_skip, data.skipped), *rows, *data.left_out_by_choice()]
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
            print(data.report(pictures_per_group=self.pictures_per_group))


def _skip(clip: Any) -> dict[str, str]:
    row = {"source": clip.source, "file": printable(clip.path), "reason": printable(clip.reason)}
    return row | ({"clip_id": clip.clip_id} if clip.clip_id else {})
