"""CacheWriter: what the encode job makes goes to disk, and what it skipped is listed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import BasePredictionWriter
from tqdm import tqdm

from musicinfuser.media.latents import ClipHeader, clip_path, write_caption
from musicinfuser.media.latents import write_clip as write_clip_file
from musicinfuser.whole_files import write_text

if TYPE_CHECKING:
    from datamodules.encoding import EncodingDataModule
    from lightning_modules.encoding import ClipEncoder, EncodedClip


class CacheWriter(BasePredictionWriter):
    """Writes one file per clip and per caption, whole or not at all."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
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
            recipe=data.recipe(module),
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
        """Write the list of skipped files and print the counts, also if there was nothing to do."""
        data: EncodingDataModule = trainer.datamodule  # type: ignore[attr-defined]
        skipped = [_skip(s) for s in data.skipped] if trainer.is_global_zero else []
        skipped += self.skipped
        path = Path(data.cache_dir, f"skipped_rank{trainer.global_rank}.jsonl")
        write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in skipped))
        report = data.report(
            num_written=self.num_written, num_padded=self.num_padded, skipped=skipped
        )
        print(report)
        print(f"the skipped files with their reasons: {path}")


def _skip(clip: Any) -> dict[str, str]:
    row = {"source": clip.source, "file": str(clip.path), "reason": clip.reason}
    return row | ({"clip_id": clip.clip_id} if clip.clip_id else {})
