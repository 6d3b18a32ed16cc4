"""From a sweep file to runs: folders, stages and their commands."""

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any, Literal

from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.label_files import read_yaml
from musicinfuser.setting_differences import flatten, laid_over
from sweeps.inputs import named_paths
from sweeps.settings import RowSpec, SweepError, SweepSpec, all_rows, slug

ROOT = Path(__file__).resolve().parents[1]
StageName = Literal["fit", "predict", "score"]
Tree = dict[str, Any]
"""A config's content."""
Layers = Sequence[tuple[Sequence[str], Mapping[str, Any]]]
"""Config files laid over each other, each group followed by options."""
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
        settings: Everything that decides what it makes, but seeds and folders of its run; as it
            comes back from a JSON file.
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

    def __post_init__(self) -> None:
        """Make the settings those of a JSON file."""
        plain = json.loads(json.dumps(self.settings, default=str))
        object.__setattr__(self, "settings", plain)


@dataclass(frozen=True)
class Run:
    """One folder of a sweep.

    Attributes:
        name: Of the folder: row and seed.
        row: Row of the table.
        seed: ``seed_everything``; None where nothing is generated.
        folder: Where its files go.
        stages: In order; those that are left to do are the last ones.
        after: Folder name of the run whose adapters it takes.
        memo: Folder of the sweep, which keeps the digests of inputs.
    """

    name: str
    row: str
    seed: int | None
    folder: Path
    stages: tuple[Stage, ...]
    after: str | None = None
    memo: Path | None = None

    @property
    def videos(self) -> Path:
        """Where its clips go."""
        return self.folder / "videos"


def plan_runs(spec: SweepSpec) -> list[Run]:
    """The runs of a sweep, row by row, seed by seed; `SweepError` if a config cannot be read."""
    place, memo = Path(spec.runs or spec.folder), Path(spec.folder)
    runs = []
    for row in all_rows(spec):
        name = slug(row.name)
        if row.clips is not None:
            stages = (_score(spec, place / name, clips=Path(row.clips)),)
            runs.append(Run(name, row.name, None, place / name, stages, memo=memo))
            continue
        for seed in row.seeds or (spec.seeds if row.train else spec.seeds[:1]):
            folder = place / f"{name}_seed{seed}"
            after = row.adapters_of and f"{slug(row.adapters_of)}_seed{seed}"
            run = Run(folder.name, row.name, seed, folder, (), after, memo)
            runs.append(replace(run, stages=_stages(spec, row, run)))
    return runs


def checkpoints(folder: Path) -> Path:
    """Where a run's checkpoints lie; `train.py` takes the newest of such a folder."""
    return folder / "checkpoints"


def _stages(spec: SweepSpec, row: RowSpec, run: Run) -> tuple[Stage, ...]:
    layers = [(spec.configs, spec.options), (row.overlays, row.options)]
    settings = merged(layers) | {"seed_everything": run.seed}
    # Tells one backbone from another in the same folder; None for what is not on this machine.
    pretrained = flatten(settings).get(BACKBONE)
    weights = Path(pretrained or "", "transformer")
    known = fingerprint_folder(weights) if pretrained and weights.is_dir() else None
    made_with = {"config": settings, "weights": known}
    read = {k: value for k, value in flatten(settings).items() if not k.startswith(NOT_READ)}
    shared: list[str] = []
    for files, options in layers:
        shared += [*(f"--config={path}" for path in files), *option_arguments(options)]
    shared += [
        f"--seed_everything={run.seed}",
        f"--trainer.default_root_dir={run.folder}",
        "--trainer.enable_progress_bar=false",
    ]
    stages: list[Stage] = []
    if row.train and row.adapters_of is None:
        own = ["--trainer.callbacks+=callbacks.ProgressFile", "--ckpt_path=last"]
        command = program("train.py", "fit", *shared, *own)
        stages.append(Stage("fit", command, made_with, named_paths(read)))
    trained = checkpoints(run.folder if run.after is None else run.folder.parent / run.after)
    needs = () if run.after is None else (str(trained),)
    predict = dict(spec.predict)
    if isinstance(generation := predict.get(GENERATION), Mapping):
        # Keep the clips that a `predict` which was cut off has made.
        predict[GENERATION] = {**generation, "finished": {"folder": str(run.videos)}}
    own = [
        *option_arguments(predict),
        f"--ckpt_path={trained if row.train else 'null'}",
        f"--video_writer.output_dir={run.videos}",
        f"--video_writer.system={row.name}",
    ]
    command = program("train.py", "predict", *shared, *own)
    settings = made_with | {"predict": spec.predict, "adapters_of": run.after}
    read = {name: value for name, value in read.items() if not name.startswith(CACHE)}
    reads = (*named_paths(read, spec.predict), *needs)
    stages.append(Stage("predict", command, settings, reads, needs=next(iter(needs), None)))
    return (*stages, _score(spec, run.folder, clips=run.videos))


def _score(spec: SweepSpec, folder: Path, *, clips: Path) -> Stage:
    metrics = spec.score.metrics
    own = [str(clips), f"--metrics={metrics}", f"--output={folder / 'metrics.json'}"]
    command = program("evaluate.py", "score", *own, *option_arguments(spec.score.options))
    settings = {"metrics": read_yaml(metrics), "options": spec.score.options, "clips": str(clips)}
    reads = (*named_paths(settings["metrics"], spec.score.options), str(clips))
    return Stage("score", command, settings, reads, stop_signal=SIGINT)


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a file of this repository's root."""
    return (sys.executable, str(ROOT / name), *arguments)


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line takes them."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in options.items()
    ]


def merged(layers: Layers) -> Tree:
    """A config as the layers leave it; options replace what was there."""
    tree: Tree = {}
    for files, options in layers:
        for path in files:
            data = read_yaml(path)
            if data is not None and not isinstance(data, dict):
                raise SweepError(f"{path}: is no config of train.py; it must hold keys and values.")
            tree = laid_over(tree, data or {})
        for name, value in options.items():
            *groups, leaf = name.split(".")
            node = tree
            for group in groups:
                if not isinstance(node.get(group), dict):
                    node[group] = {}
                node = node[group]
            node[leaf] = copy.deepcopy(value)
    return tree
