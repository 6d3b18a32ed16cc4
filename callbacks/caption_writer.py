"""CaptionWriter: what the caption job says goes to tables, and what it skipped is listed."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import BasePredictionWriter

from musicinfuser.atomic_files import write_json_lines
from musicinfuser.errors import printable
from musicinfuser.file_identity import FileIdentity

if TYPE_CHECKING:
    from datamodules.captioning import CaptioningDataModule
    from lightning_modules.captioning import Caption

ROWS_PER_TABLE = 200
"""A table is written anew with each caption; this many keep that cheap."""


class CaptionWriter(BasePredictionWriter):
    """Writes ``captions_rank<R>_<N>.jsonl`` with the fields ``file`` and ``caption``.

    Further fields say what the video was: one that has changed gets another caption. A table is
    whole after every video. Those of earlier runs are left as they are.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.num_written = 0
        self.skipped: list[dict[str, str]] = []
        self._rows: list[dict[str, str]] = []
        self._table: Path | None = None

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
        """Write the captions of a batch, remember the videos without one."""
        data: CaptioningDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for result in prediction:
            if hasattr(result, "reason"):
                self._skip(result.path, result.reason)
            elif not result.caption:
                self._skip(result.path, "no caption: the model had nothing to say")
            else:
                self._write(data.tables, trainer.global_rank, result)

    def _write(self, folder: Path, rank: int, said: "Caption") -> None:
        if self._table is None or len(self._rows) == ROWS_PER_TABLE:
            self._table, self._rows = _next_table(folder, rank), []
        row = {"file": said.file, "caption": said.caption}
        with suppress(OSError):  # gone by now: the caption is kept all the same
            row |= FileIdentity.of(said.path).as_attributes()
        self._rows.append(row)
        write_json_lines(self._table, self._rows)
        self.num_written += 1

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append({"file": printable(path), "reason": printable(reason)})

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """List the skipped videos and print the counts, also if there was nothing to do."""
        data: CaptioningDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.global_rank == 0:
            for video, reason in data.illegible.items():
                self._skip(video, reason)
        path = data.tables / f"skipped_rank{trainer.global_rank}.jsonl"
        write_json_lines(path, self.skipped)
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
