"""What predict jobs make goes to disk as soon as it is made: videos, a cache of clips, captions."""

from abc import ABC, abstractmethod
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import LightningCLI

from datamodules.captioning import CaptioningDataModule
from datamodules.clips import SkippedClip
from datamodules.encoding import EncodingDataModule
from datamodules.masks import ClipMask
from datamodules.report import left_out_of, write_report
from lightning_modules.captioning import Caption
from lightning_modules.encoding import ClipEncoder, EncodedCaption, EncodedClip
from musicinfuser.atomic_files import require_writable, write_json_lines
from musicinfuser.errors import printable
from musicinfuser.fingerprint import FileIdentity
from musicinfuser.generation import GeneratedClip, write_clip
from musicinfuser.media.audio import SILENCE_DBFS, loudness_dbfs
from musicinfuser.media.generated import write_manifest
from musicinfuser.media.latents import ClipHeader, clip_path, write_caption
from musicinfuser.media.latents import write_clip as write_clip_file
from musicinfuser.media.masks import mask_path, write_mask

MOST_LINES = 20
"""Of what was skipped; the rest is in the list only."""
ROWS_PER_TABLE = 200
"""A table of captions is written anew with each caption; this many keep that cheap."""


class PredictionWriter(BasePredictionWriter, ABC):
    """Writes each result of a batch with `write`, atomically; skipped clips are kept for a list."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.num_written = 0
        self.skipped: list[dict[str, Any]] = []

    def write_on_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: Any, *_: Any, **__: Any
    ) -> None:
        """Write the results of a batch."""
        for result in prediction:
            if isinstance(result, SkippedClip):
                self.skipped.append(self.skipped_row(result))
            else:
                self.num_written += self.write(trainer, pl_module, result)

    @abstractmethod
    def write(self, trainer: L.Trainer, module: Any, result: Any) -> bool:
        """Write one result; False if there is nothing in it to write."""

    @staticmethod
    def skipped_row(clip: SkippedClip) -> dict[str, Any]:
        """A row of the list of skipped files."""
        return {"file": printable(clip.path), "reason": printable(clip.reason)}


def list_skipped(folder: str | Path, trainer: L.Trainer, rows: list[dict[str, Any]]) -> Path:
    """Write ``skipped_rank<R>.jsonl``, also if nothing was skipped."""
    path = Path(folder, f"skipped_rank{trainer.global_rank}.jsonl")
    write_json_lines(path, rows)
    return path


class CacheWriter(PredictionWriter):
    """Writes one file per encoded clip, caption and mask, and a report at the end."""

    def __init__(self, pictures_per_group: int = 12) -> None:
        """Set up.

        Args:
            pictures_per_group: Clips the page of thumbnails shows of each source, genre, camera and
                split, and files of each reason for leaving them out; 0 makes no page.
        """
        super().__init__()
        self.pictures_per_group = pictures_per_group
        self.num_padded = self.num_masks = 0

    def before_run(self, cli: LightningCLI) -> None:
        """Refuse a cache that cannot be written."""
        if cli.subcommand == "predict":
            require_writable(cli.datamodule.cache_dir, option="data.cache_dir")

    def write(
        self,
        trainer: L.Trainer,
        module: ClipEncoder,
        result: EncodedCaption | EncodedClip | ClipMask,
    ) -> bool:
        """Write a caption, a mask, or a clip with its header; clips are counted."""
        cache_dir = _data(trainer).cache_dir
        if isinstance(result, EncodedCaption):
            write_caption(cache_dir, result.text, result.features)
            return False
        spec = result.spec
        if isinstance(result, ClipMask):
            self.num_masks += 1
            path = mask_path(cache_dir, spec.source, spec.clip_id)
            write_mask(path, result.mask, result.made_of)
            return False
        self.num_padded += "audio_padded_seconds" in spec.attributes
        header = ClipHeader(
            path=clip_path(cache_dir, spec.source, spec.clip_id),
            recipe=module.recipe.of_shape(*spec.shape),
            source=spec.source,
            clip_id=spec.clip_id,
            caption=spec.caption,
            base_caption=spec.base_caption,
            music=spec.music,
            split=spec.split,
            attributes=spec.attributes | spec.cut,
        )
        write_clip_file(
            header,
            latent_mean=result.latent_mean,
            latent_logvar=result.latent_logvar,
            audio=result.audio,
        )
        masks = _data(trainer).masks
        if masks is None or masks.file_of(spec.path) is None:
            # It was made of what the video was before.
            mask_path(cache_dir, spec.source, spec.clip_id).unlink(missing_ok=True)
        return True

    @staticmethod
    def skipped_row(clip: SkippedClip) -> dict[str, Any]:
        """With its source, and the clip where it is not the whole file."""
        row = {"source": clip.source, **PredictionWriter.skipped_row(clip)}
        return row | ({"clip_id": clip.clip_id} if clip.clip_id else {})

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """List what was left out and report on the cache, also if there was nothing to do."""
        data, rows = _data(trainer), self.skipped
        if trainer.is_global_zero:
            before = [self.skipped_row(clip) for each in data.datasets for clip in each.skipped]
            by_choice = [row for dataset in data.datasets for row in left_out_of(dataset)]
            rows = [*before, *rows, *(row for row in by_choice if row["kind"] != "skipped")]
        path = list_skipped(data.cache_dir, trainer, rows)
        print(f"encoded {self.num_written} clips, {data.num_found} were there already.")
        if (masks := data.missing_masks) is not None:
            print(f"made {self.num_masks} masks, {masks.num_found} were there already.")
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


class CaptionWriter(PredictionWriter):
    """Writes ``captions_rank<R>_<N>.jsonl`` with the fields ``file`` and ``caption``.

    Further fields say what the video was: one that has changed gets another caption. A table is
    complete after every video. Those of earlier runs are left as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[dict[str, str]] = []
        self._table: Path | None = None

    def write(self, trainer: L.Trainer, module: Any, result: Caption) -> bool:
        """Add one caption to the table."""
        if not result.caption:
            self._skip(result.path, "no caption: the model had nothing to say")
            return False
        data: CaptioningDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if self._table is None or len(self._rows) == ROWS_PER_TABLE:
            self._table, self._rows = _next_table(data.tables, trainer.global_rank), []
        row = {"file": result.file, "caption": result.caption}
        with suppress(OSError):  # gone by now: the caption is kept all the same
            row |= FileIdentity.of(result.path).as_attributes()
        self._rows.append(row)
        write_json_lines(self._table, self._rows)
        return True

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append({"file": printable(path), "reason": printable(reason)})

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """List the skipped videos and print the counts, also if there was nothing to do."""
        data: CaptioningDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.global_rank == 0:
            for video, reason in data.illegible.items():
                self._skip(video, reason)
        path = list_skipped(data.tables, trainer, self.skipped)
        num_found = len(data.videos) - len(data.missing)
        print(f"captioned {self.num_written} videos, {num_found} had a caption already.")
        for reason, count in Counter(s["reason"].split(":")[0] for s in self.skipped).items():
            print(f"skipped: {reason}: {count}")
        for skip in self.skipped:
            print(f"  {skip['file']}: {skip['reason']}")
        print(f"captions: {data.tables}; the skipped videos with their reasons: {path}")


def _next_table(folder: Path, rank: int) -> Path:
    """The first name after those in use."""
    numbers = [int(p.stem.rpartition("_")[2]) for p in folder.glob(f"captions_rank{rank}_*.jsonl")]
    return folder / f"captions_rank{rank}_{max(numbers, default=-1) + 1:04}.jsonl"


class VideoWriter(PredictionWriter):
    """Writes an mp4 with sound and a description per request, and a manifest at the end."""

    def __init__(self, output_dir: str | None = None, system: str = "musicinfuser") -> None:
        """Choose the folder.

        Args:
            output_dir: Where clips go; ``<trainer.default_root_dir>/videos`` if absent.
            system: Name of the row in tables; what `GenerationRequest.control` says, such as
                ``, mismatched audio``, is added for requests that hear something else.
        """
        super().__init__()
        self.output_dir = output_dir
        self.system = system

    def folder(self, trainer: L.Trainer) -> Path:
        """Where clips go."""
        return Path(self.output_dir or Path(trainer.default_root_dir, "videos"))

    def before_run(self, cli: LightningCLI) -> None:
        """Refuse a folder that cannot be written."""
        if cli.subcommand == "predict" and self.output_dir is not None:
            require_writable(self.output_dir, option="video_writer.output_dir")

    def write(self, trainer: L.Trainer, module: Any, result: Any) -> bool:
        """Write one clip and forget what it was to be resumed from; other results are not ours."""
        if not isinstance(result, GeneratedClip):
            return False
        request = result.request
        write_clip(self.folder(trainer), result, sampling=module.sampling, system=self.system)
        if result.checkpoint is not None:
            result.checkpoint.remove()
        if result.padded_seconds:
            sounds = filter(None, (request.track, request.heard_file))
            trainer.print(
                f"{' or '.join(sounds)} ends before the clip does: {result.padded_seconds:.2f} s "
                "of silence were added."
            )
        if loudness_dbfs(result.waveform) < SILENCE_DBFS:
            trainer.print(
                f"{request.track} is silent from second {request.track_offset_seconds:.2f} on for "
                "the whole clip; choose another start if that is not meant."
            )
        return True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Collect the manifest once all ranks are done, also if there was nothing to do."""
        if stage != "predict":
            return
        trainer.strategy.barrier("clips written")
        # Another rank, or an earlier command that was cut off, may have written all there is.
        is_any = self.num_written or any(self.folder(trainer).glob("*.mp4"))
        if is_any and trainer.is_global_zero:
            manifest = write_manifest(self.folder(trainer))
            num_clips = len(manifest.read_text().splitlines())
            trainer.print(f"{num_clips} clips are listed in {manifest}")
