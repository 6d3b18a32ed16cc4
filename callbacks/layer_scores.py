"""LayerScores: clips that measure layer adaptability, scored, ranked and plotted (Fig. 15)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from dance_eval.layer_scores import layer_scores, score_plot, score_rows
from datamodules.layer_requests import LayerRequestsDataModule
from lightning_modules.adaptability import LayerAdaptabilityModule
from lightning_modules.long_clips import leave_unless_done
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.generation import write_clip
from musicinfuser.generation_requests import layer_folder, system_name
from musicinfuser.label_files import read_json
from musicinfuser.media.generated import write_manifest
from musicinfuser.setting_checks import check_file
from musicinfuser.tables import markdown_table

EVALUATE = Path(__file__).parents[1] / "evaluate.py"
SCORES_NAME = "adaptability.json"


class LayerScores(L.Callback):
    """Writes each clip when it is made; at the end scores all by `evaluate.py`, ranks and plots."""

    def __init__(
        self,
        metrics: str | None,
        values: list[str],
        num_layers: int | None = None,
        max_height: int = 480,
        seed: int = 0,
        confidence: float = 0.95,
    ) -> None:
        """Choose what layers are judged by.

        Args:
            metrics: A list of metrics as `evaluate.py score` reads it; null only makes the clips.
            values: ``metric/value`` of which more is better; the first ranks, all are reported.
            num_layers: How many layers are chosen; a third of them by default (16 of 48).
            max_height: Taller frames are scaled down to it for scoring, in px.
            seed: Of scoring and intervals.
            confidence: Of intervals.

        Raises:
            ValueError: The metrics do not exist, or there is no value to rank by.
        """
        super().__init__()
        if metrics is not None:
            check_file("LayerScores.metrics", metrics)
        if metrics is not None and not values:
            raise UserError("LayerScores.values is empty; name what ranks, e.g. metric/score.")
        self.metrics, self.values, self.num_layers = metrics, values, num_layers
        self.max_height, self.seed, self.confidence = max_height, seed, confidence

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Say what was chosen where the paper is silent."""
        data: LayerRequestsDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for name, choice in data.choices.items():
            trainer.print(f"{name}: {json.dumps(choice, ensure_ascii=False)}")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Write the clips of a batch; after a SIGTERM, leave."""
        data: LayerRequestsDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for layer, clip in zip((r.layer for r in batch), outputs["clips"], strict=True):
            folder, system = layer_folder(data.output_dir, layer), system_name(layer)
            write_clip(folder, clip, sampling=pl_module.sampling, system=system)
        leave_unless_done(trainer, batch_idx + 1, sum(trainer.num_val_batches), "clips")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Score what all processes made, also if there was nothing left to make."""
        trainer.strategy.barrier("clips written")
        if not trainer.is_global_zero:
            return
        module: LayerAdaptabilityModule = pl_module  # type: ignore[assignment]
        data: LayerRequestsDataModule = trainer.datamodule  # type: ignore[attr-defined]
        output = Path(data.output_dir)
        folders = [layer_folder(output, layer) for layer in (None, *range(module.depth))]
        for folder in folders:
            write_manifest(folder)
        if self.metrics is None:
            trainer.print(f"clips for {module.depth} layers are in {folders[0].parent}")
            return
        self._score(folders, output / "metrics.json")
        self._rank(trainer, output, depth=module.depth, choices=data.choices)

    def _score(self, folders: list[Path], metrics_file: Path) -> None:
        # A process of its own: what it loads is gone afterwards.
        command = [
            sys.executable, str(EVALUATE), "score", *map(str, folders),
            f"--metrics={self.metrics}", f"--output={metrics_file}", f"--seed={self.seed}",
            f"--confidence={self.confidence}", f"--max_height={self.max_height}",
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
        if done.returncode:
            raise UserError(
                "the clips are made, but `evaluate.py score` said why above and ended with code "
                f"{done.returncode}; mend that and repeat the command."
            )

    def _rank(
        self, trainer: L.Trainer, output: Path, *, depth: int, choices: dict[str, Any]
    ) -> None:
        found = layer_scores(
            read_json(output / "metrics.json"),
            values=self.values,
            depth=depth,
            num_layers=self.num_layers,
            choices=choices | {"metrics": self.metrics, "max_height": self.max_height},
        )
        for value in self.values:
            write_text(output / f"{value.replace('/', '_')}.svg", score_plot(found, value))
        write_text(output / SCORES_NAME, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        trainer.print(markdown_table(score_rows(found)))
        trainer.print(
            f"chosen by {found['value']}: {found['chosen']}; in a training config, "
            f"`layers: {{strategy: adaptability, scores: {output / SCORES_NAME}}}`"
        )
