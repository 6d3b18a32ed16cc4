"""Does ZICA need to know time? Positions and audio resampling, three seeds each.

    python -m small_world.experiments.zica_time --cache runs/parts/cache --out runs/zica_time

Every run is `train.py fit` on configs/base.yaml and configs/small_world/small.yaml; runs that
finished are kept, those that were interrupted resume. Judged on clips of held-out music: by how
much another clip's music raises the loss at each noise level (0 means that the music is not heard).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

from dance_eval.metrics.intervals import bootstrap_mean
from musicinfuser.atomic_files import write_text
from musicinfuser.tables import Row, markdown_table
from small_world.experiments.commands import call, keep_settings

VARIANTS: dict[str, dict[str, str]] = {
    "none": {"positions": "none", "resampling": "nearest"},
    "rotary": {"positions": "rotary", "resampling": "nearest"},
    "aligned": {"positions": "aligned", "resampling": "nearest"},
    "aligned, centre": {"positions": "aligned", "resampling": "centre"},
    "aligned, average": {"positions": "aligned", "resampling": "average"},
    "none, centre": {"positions": "none", "resampling": "centre"},
}
SIGMAS = ("0.20", "0.40", "0.60", "0.80", "0.95")


def train(variant: str, seed: int, settings: argparse.Namespace) -> Path:
    """Run one training, or go on with it; returns its folder."""
    chosen = VARIANTS[variant]
    folder = settings.out / f"{variant.replace(', ', '_')}_seed{seed}"
    options = {
        "trainer.default_root_dir": folder,
        "trainer.max_steps": settings.steps,
        "trainer.val_check_interval": settings.steps,
        "trainer.enable_progress_bar": "false",
        "beta_annealing.half_life_steps": max(settings.steps // 20, 1),  # base.yaml's share
        "sample_generation.every_n_steps": 0,
        "model.init_args.zica.positions": chosen["positions"],
        "model.init_args.audio_resampling": chosen["resampling"],
        "data.init_args.cache_dir": settings.cache,
        "data.init_args.batch_size": settings.batch_size,
        "data.init_args.validation_batch_size": settings.batch_size,
        "data.init_args.max_validation_clips": settings.clips,
        "seed_everything": seed,
    }
    call(
        "train.py", "fit", "--config", "configs/base.yaml",
        "--config", "configs/small_world/small.yaml",
        *(f"--{name}={value}" for name, value in options.items()), done=folder / "finished",
    )  # fmt: skip
    return folder


def final_values(folder: Path) -> dict[str, float]:
    """The last value of every validation figure of a run."""
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    names = [tag for tag in events.Tags()["scalars"] if tag.startswith("val/")]
    return {name: events.Scalars(name)[-1].value for name in names}


def rows(results: dict[str, list[dict[str, float]]]) -> list[Row]:
    """One line per variant: mean gap over seeds in percent, with the range of the seeds."""
    table: list[Row] = []
    for variant, runs in results.items():
        row: dict[str, str | int | float | None] = {"positions, resampling": variant}
        for sigma in SIGMAS:
            gaps = [100 * run[f"val/music_gap_sigma_{sigma}"] for run in runs]
            mean = sum(gaps) / len(gaps)
            row[f"gap at {sigma}, %"] = f"{mean:.1f} ({min(gaps):.1f} to {max(gaps):.1f})"
        losses = bootstrap_mean(
            [run["val/loss"] for run in runs], seed=0, name=variant, confidence=0.95
        )
        row["loss"] = losses.mean
        row["seeds"] = len(runs)
        table.append(row)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then write results.json and results.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="what the encode job wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--clips", type=int, default=48, help="held-out clips that judge")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    settings = parser.parse_args(arguments)
    names = ("cache", "steps", "batch_size", "clips")
    keep_settings(settings.out, {name: getattr(settings, name) for name in names})
    plan = [(variant, seed) for seed in settings.seeds for variant in settings.variants]
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in settings.variants}
    for variant, seed in tqdm(plan, unit="run"):
        results[variant].append(final_values(train(variant, seed, settings)))
    table = markdown_table(rows(results))
    document = {"settings": {**vars(settings), "out": None, "cache": None}, "runs": results}
    write_text(settings.out / "results.json", json.dumps(document, indent=1) + "\n")
    write_text(settings.out / "results.md", table)
    print(table)


if __name__ == "__main__":
    main()
