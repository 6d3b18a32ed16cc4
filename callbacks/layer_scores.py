"""LayerScores: clips that measure layer adaptability, scored, ranked and plotted (Fig. 15).

Fields of adaptability.json, which `layers: {strategy: adaptability, scores: FILE}` reads:
    scores: One number per block, the mean of the value that ranks.
    value: That value, as ``metric/value``.
    ranking: Block indices, the highest score first, ties to the lower index.
    chosen: The first of the ranking, sorted; num_layers says how many.
    values: {value: {"layers": [one per block], "reference": as one of them}}, each with mean, low,
        high and n; for values of single clips also ``gain``, the mean difference to the reference
        over the same prompts and seeds, likewise with its interval.
    choices: What the clips were made with.
    metrics: What they were scored with, all defaults filled in.
    seed, confidence: Of the intervals.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot
from datamodules.layer_requests import LayerRequestsDataModule
from lightning_modules.adaptability import LayerAdaptabilityModule
from lightning_modules.long_clips import leave_unless_done
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.generation import write_clip
from musicinfuser.generation_requests import layer_folder, system_name
from musicinfuser.label_files import read_json
from musicinfuser.media.generated import write_manifest
from musicinfuser.networks.layer_selection import rank_layers
from musicinfuser.setting_checks import check_file
from musicinfuser.tables import Row, markdown_table

EVALUATE = Path(__file__).parents[1] / "evaluate.py"
SCORES_NAME = "adaptability.json"


class AdaptabilityError(UserError):
    """Layers cannot be ranked. The message is one sentence."""


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


def layer_scores(
    document: Document,
    *,
    values: Sequence[str],
    depth: int,
    num_layers: int | None = None,
    choices: Document | None = None,
) -> Document:
    """Rank the layers by what guidance by each of them gives (section 4.1, appendix G).

    Args:
        document: metrics.json of the folders of all layers and the reference.
        values: ``metric/value`` of which more is better; the first ranks, all are reported.
        depth: Number of blocks.
        num_layers: How many are chosen; a third of them if absent (16 of 48).
        choices: What the clips were made with.

    Returns:
        The content of adaptability.json.

    Raises:
        AdaptabilityError: A value that was not measured for a layer or on some of its clips, or a
            number of layers that the model does not have.
    """
    num_layers = depth // 3 if num_layers is None else num_layers
    if not values or not 1 <= num_layers <= depth:
        raise AdaptabilityError(
            f"{num_layers} of {depth} layers cannot be chosen by {list(values)}; name a value and "
            f"a number from 1 to {depth}."
        )
    found = {value: _measured(document, value, depth=depth) for value in values}
    scores = [layer["mean"] for layer in found[values[0]]["layers"]]
    ranking = rank_layers(scores)
    return {
        "scores": scores,
        "value": values[0],
        "ranking": ranking,
        "num_layers": num_layers,
        "chosen": sorted(ranking[:num_layers]),
        "values": found,
        "choices": choices or {},
        "metrics": document["metrics"],
        "seed": document["seed"],
        "confidence": document["confidence"],
    }


def _measured(document: Document, value: str, *, depth: int) -> Document:
    reference, by_request, num_failed = _of_system(document, value, None)
    layers = []
    for layer in range(depth):
        fields, own, failed = _of_system(document, value, layer)
        if own.keys() != by_request.keys() or failed or num_failed:
            raise AdaptabilityError(
                f"{value} was not measured on the same clips for layer {layer} as without skipping "
                f"({fields['n']} and {reference['n']} clips); see the failures in metrics.json and "
                "repeat the command."
            )
        if own:
            gain = bootstrap_mean(
                [own[request] - by_request[request] for request in by_request],
                seed=document["seed"],
                name=f"gain of {value}, layer {layer}",
                confidence=document["confidence"],
            )
            fields["gain"] = gain.as_fields()
        layers.append(fields)
    return {"layers": layers, "reference": reference}


def _of_system(
    document: Document, value: str, layer: int | None
) -> tuple[Document, dict[tuple[str, int], float], int]:
    """Fields of a layer's mean, its numbers by prompt and seed, and how many clips failed."""
    system = system_name(layer)
    fields = document["systems"].get(system, {}).get(value)
    if fields is None or fields["mean"] is None:
        measured = list(document["systems"].get(system, {}))
        raise AdaptabilityError(
            f"{value} was not measured for clips with {system}; there is "
            f"{', '.join(measured) or 'nothing'}."
        )
    metric, _, name = value.partition("/")
    clips = [clip for clip in document["clips"] if clip["system"] == system]
    numbers = {
        (clip["prompt"], clip["seed"]): clip["values"][metric][name]
        for clip in clips
        if name in clip["values"].get(metric, {})
    }
    fields = dict(fields)
    num_failed = fields.pop("num_failed")
    return fields, numbers, num_failed


def score_rows(found: Document) -> list[Row]:
    """One row per layer for reading, the reference last."""
    rows: list[Row] = []
    layers: list[int | None] = [*range(len(found["scores"])), None]
    for layer in layers:
        row: dict[str, Any] = {"layer": system_name(layer)}
        for value, measured in found["values"].items():
            fields = measured["reference" if layer is None else "layers"]
            fields = fields if layer is None else fields[layer]
            row[value] = _text(fields)
            row[f"{value}, gain"] = _text(fields["gain"]) if "gain" in fields else None
        row["rank"] = None if layer is None else found["ranking"].index(layer) + 1
        row["chosen"] = "yes" if layer in found["chosen"] else ""
        rows.append(row)
    return rows


def score_plot(found: Document, value: str) -> str:
    """Fig. 15 as SVG: each layer's score with its interval, a dashed line at the reference.

    Layers that are not chosen are rings.
    """
    measured = found["values"][value]
    layers, reference = measured["layers"], measured["reference"]["mean"]
    rows = []
    for layer, fields in enumerate(layers):
        is_chosen = layer in found["chosen"]
        label = f"{system_name(layer)}{', chosen' if is_chosen else ''}"
        ends = fields["mean"], fields["low"], fields["high"]
        rows.append(PlotRow(label, 0, *ends, is_hollow=not is_chosen))
    return interval_plot(
        f"{value} with guidance by each layer (dashed: none, {reference:.3f})",
        rows,
        is_wide=True,
        reference=reference,
    )


def _text(fields: Document) -> str:
    if fields["low"] is None:
        return f"{fields['mean']:.3f}"
    return f"{fields['mean']:.3f} [{fields['low']:.3f}, {fields['high']:.3f}]"
