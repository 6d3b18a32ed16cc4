"""From a sweep file to runs: folders, stages and their commands."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any, Literal

from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.label_files import read_yaml
from sweeps.errors import SweepError
from sweeps.inputs import named_paths
from sweeps.merging import flat, merged, option_arguments
from sweeps.settings import RowSpec, SweepSpec, slug

ROOT = Path(__file__).resolve().parents[1]
StageName = Literal["fit", "predict", "score"]
GENERATION = "data.init_args.generation"
BACKBONE = "model.init_args.backbone.pretrained"
CACHE = "data.init_args.cache_dir"
# The backbone is known by its weights, and samples on the way change no result.
NOT_READ = (BACKBONE, "sample_generation.", "video_writer.")


@dataclass(frozen=True)
class Stage:
    """One process of a run.

    Attributes:
        name: What it does.
        command: Its command line.
        settings: Everything that decides what it makes, but seeds and folders of its run.
        reads: Files and folders whose content decides it, too.
        needs: A folder that another run makes first.
        stop_signal: What lets it end with its work saved.
    """

    name: StageName
    command: tuple[str, ...]
    settings: Mapping[str, Any]
    reads: tuple[str, ...] = ()
    needs: str | None = None
    stop_signal: int = SIGTERM


@dataclass(frozen=True)
class Run:
    """One folder of a sweep.

    Attributes:
        name: Of the folder: row and seed.
        row: Row of the table.
        seed: ``seed_everything``; None where nothing is generated.
        folder: Where its files go.
        stages: What is left to do, in order, is a tail of them.
        after: Folder name of the run whose adapters it takes.
        memo: Folder of the sweep, where it is noted what inputs hold.
    """

    name: str
    row: str
    seed: int | None
    folder: Path
    stages: tuple[Stage, ...]
    after: str | None = None
    memo: Path | None = None


def all_rows(spec: SweepSpec) -> list[RowSpec]:
    """The rows, and one per combination of the axes."""
    rows = list(spec.rows)
    choices = [[(axis, *choice) for choice in labels.items()] for axis, labels in spec.axes.items()]
    for combination in itertools.product(*choices) if choices else ():
        name = ", ".join(f"{axis} {label}" for axis, label, _ in combination)
        rows.append(RowSpec(name, overlays=[path for _, _, path in combination if path]))
    if len({slug(row.name) for row in rows}) < len(rows):
        raise SweepError("a row has the name of a combination of the axes; rename it.")
    return rows


def plan_runs(spec: SweepSpec) -> list[Run]:
    """The runs of a sweep, row by row, seed by seed; no folder is touched.

    Raises:
        SweepError: A config cannot be read, or two rows would share a folder.
    """
    rows = all_rows(spec)
    of, memo = {row.name: row for row in rows}, Path(spec.folder)
    runs = []
    for row in rows:
        if row.clips is not None:
            name = slug(row.name)
            folder = Path(spec.runs or spec.folder) / name
            stages = (_score(spec, folder, clips=Path(row.clips)),)
            runs.append(Run(name, row.name, None, folder, stages, memo=memo))
            continue
        seeds = row.seeds or (spec.seeds if row.train else spec.seeds[:1])
        for seed in seeds:
            name = run_name(row, seed)
            folder = Path(spec.runs or spec.folder) / name
            after = None if row.adapters_of is None else run_name(of[row.adapters_of], seed)
            run = Run(name, row.name, seed, folder, (), after, memo)
            runs.append(replace(run, stages=_stages(spec, row, run)))
    return runs


def run_name(row: RowSpec, seed: int) -> str:
    """The folder of a run."""
    return f"{slug(row.name)}_seed{seed}"


def checkpoints(folder: Path) -> Path:
    """Where a run's checkpoints lie; `train.py` takes the newest of such a folder."""
    return folder / "checkpoints"


def _stages(spec: SweepSpec, row: RowSpec, run: Run) -> tuple[Stage, ...]:
    layers = [(spec.configs, spec.options), (row.overlays, row.options)]
    settings = merged(layers) | {"seed_everything": run.seed}
    made_with = {"config": settings, "weights": _weights(settings)}
    read = _without(settings, NOT_READ)
    shared = [
        *_config_arguments(layers),
        f"--seed_everything={run.seed}",
        f"--trainer.default_root_dir={run.folder}",
        "--trainer.enable_progress_bar=false",
    ]
    train = str(ROOT / "train.py")
    stages: list[Stage] = []
    if row.train and row.adapters_of is None:
        own = "--trainer.callbacks+=callbacks.ProgressFile"
        command = (sys.executable, train, "fit", *shared, own, "--ckpt_path=last")
        stages.append(Stage("fit", command, made_with, named_paths(read)))
    trained = checkpoints(run.folder if run.after is None else run.folder.parent / run.after)
    needs = None if run.after is None else str(trained)
    predicting = (
        sys.executable, train, "predict", *shared,
        *option_arguments(_going_on(spec.predict, run.folder / "videos")),
        f"--ckpt_path={trained if row.train else 'null'}",
        f"--video_writer.output_dir={run.folder / 'videos'}",
        f"--video_writer.system={row.name}",
    )  # fmt: skip
    stages.append(
        Stage(
            "predict",
            predicting,
            made_with | {"predict": spec.predict, "adapters_of": run.after},
            named_paths(_without(read, (CACHE,)), spec.predict) + ((needs,) if needs else ()),
            needs=needs,
        )
    )
    return (*stages, _score(spec, run.folder, clips=run.folder / "videos"))


def _weights(settings: Mapping[str, Any]) -> str | None:
    """Tells one backbone from another in the same folder; None for what is not on this machine."""
    pretrained = flat(settings).get(BACKBONE)
    folder = Path(pretrained or "", "transformer")
    return fingerprint_folder(folder) if pretrained and folder.is_dir() else None


def _without(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in flat(settings).items() if not name.startswith(names)}


def _going_on(options: Mapping[str, Any], videos: Path) -> dict[str, Any]:
    """Keep the clips that a `predict` which was cut off has made."""
    generation = options.get(GENERATION)
    if not isinstance(generation, Mapping):
        return dict(options)
    return dict(options) | {GENERATION: {**generation, "finished": {"folder": str(videos)}}}


def _score(spec: SweepSpec, folder: Path, *, clips: Path) -> Stage:
    metrics = spec.score.metrics
    command = (
        sys.executable, str(ROOT / "evaluate.py"), "score", str(clips), f"--metrics={metrics}",
        f"--output={folder / 'metrics.json'}", *option_arguments(spec.score.options),
    )  # fmt: skip
    settings = {
        "metrics": read_yaml(metrics),
        "options": spec.score.options,
        "clips": str(clips),
    }
    reads = (*named_paths(settings["metrics"], spec.score.options), str(clips))
    return Stage("score", command, settings, reads, stop_signal=SIGINT)


def _config_arguments(layers: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> list[str]:
    arguments = []
    for files, options in layers:
        arguments += [f"--config={path}" for path in files]
        arguments += option_arguments(options)
    return arguments
