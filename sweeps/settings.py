"""The file that describes a sweep."""

import itertools
import re
from argparse import ArgumentError
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicinfuser.errors import UserError, looked_for
from musicinfuser.label_files import read_yaml
from musicinfuser.option_parser import OptionParser

DEFAULT_EXECUTOR = "sweeps.gpu_slots.GpuSlots"


class SweepError(UserError):
    """A sweep cannot be run as asked. The message is one sentence."""


@dataclass(frozen=True)
class RowSpec:
    """One row of the table: a recipe that differs in one thing."""

    name: str
    """As the table shows it, and ``video_writer.system`` of its clips."""
    overlays: list[str] = field(default_factory=list)
    """Configs laid over those of the sweep."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of train.py by their dotted names, after the overlays."""
    train: bool = True
    """False: the model without training; one run, with the first seed."""
    adapters_of: str | None = None
    """Another row whose trained adapters this one generates with."""
    clips: str | None = None
    """A folder of clips that are only scored: ground truth, or another system's."""
    seeds: list[int] | None = None
    """In place of the sweep's."""


@dataclass(frozen=True)
class ScoreSpec:
    """How clips are scored."""

    metrics: str
    """A file for ``evaluate.py score --metrics``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its other options, such as ``music_beats``."""


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep file holds."""

    folder: str
    """Where the tables go."""
    configs: list[str]
    """Configs of ``train.py fit`` that all rows share."""
    score: ScoreSpec
    """What is measured."""
    runs: str | None = None
    """Where the folders of the runs go; ``folder`` if null. Sweeps that share it share what
    runs have one name."""
    rows: list[RowSpec] = field(default_factory=list)
    """The rows, one by one."""
    axes: dict[str, dict[str, str | None]] = field(default_factory=dict)
    """Named axes: label -> overlay, or null for none; every combination is one more row."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """``seed_everything`` of the runs of a row."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of train.py that all rows share, by their dotted names; before overlays."""
    predict: dict[str, Any] = field(default_factory=dict)
    """Further options of ``train.py predict``; ``data.init_args.generation`` is what is made."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns of the table: heading -> ``metric/value``; all values where there are none."""
    reference: str | None = None
    """The row that the others are compared with, pair by pair."""
    executor: dict[str, Any] = field(default_factory=lambda: {"class_path": DEFAULT_EXECUTOR})
    """A `concurrent.futures.Executor` by ``class_path`` and ``init_args``."""


def read_sweep(path: str | Path) -> SweepSpec:
    """Read and check a sweep file; the `UserError` for one that is none names the place."""
    path = Path(path)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise SweepError(f"{path}: is no sweep; it needs folder, configs, rows and score.")
    parser = OptionParser(exit_on_error=False)
    parser.add_argument("--sweep", type=SweepSpec)
    parser.files.append((path, ("sweep",)))
    try:
        spec: SweepSpec = parser.instantiate(parser.parse_object({"sweep": data})).sweep
    except ArgumentError as error:
        raise SweepError(str(error)) from error
    for problem in _problems(spec):
        raise SweepError(f"{path}: {problem}")
    return spec


def all_rows(spec: SweepSpec) -> list[RowSpec]:
    """The rows, and one per combination of the axes."""
    rows = list(spec.rows)
    choices = [[(axis, *choice) for choice in labels.items()] for axis, labels in spec.axes.items()]
    for combination in itertools.product(*choices) if choices else ():
        name = ", ".join(f"{axis} {label}" for axis, label, _ in combination)
        rows.append(RowSpec(name, overlays=[path for _, _, path in combination if path]))
    return rows


def build_executor(spec: SweepSpec) -> Executor:
    """The executor that a sweep names; `SweepError` if it is none or its arguments are wrong."""
    parser = OptionParser(exit_on_error=False)
    parser.add_subclass_arguments(Executor, "executor")
    try:
        return parser.instantiate(parser.parse_object({"executor": spec.executor})).executor
    except ArgumentError as error:
        raise SweepError(str(error)) from error
    except (ValueError, TypeError, ImportError) as error:
        # Without the pages on every type that was tried.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:3])[:400] or type(error).__name__
        raise SweepError(f"executor: {reason}") from error


def slug(name: str) -> str:
    """A name as part of a path: small letters, digits and single underscores."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_.")


def _problems(spec: SweepSpec) -> Iterator[str]:
    rows = all_rows(spec)
    if not rows:
        yield "it has neither rows nor axes; name at least one row."
    if not spec.seeds or len(set(spec.seeds)) < len(spec.seeds):
        yield f"seeds is {spec.seeds}; give at least one, and each once."
    slugs = [slug(row.name) for row in rows]
    for number, row in enumerate(rows):
        if not slugs[number]:
            yield f"the row {row.name!r} needs a name with letters or digits."
        if slugs[number] in slugs[:number]:
            other = rows[slugs.index(slugs[number])].name
            yield f"the rows {other!r} and {row.name!r} would share a folder; rename one."
        yield from _problems_of_row(row, spec)
    if spec.reference is not None and spec.reference not in {row.name for row in spec.rows}:
        yield f"its reference {spec.reference!r} is no row; name one of this file."
    overlays = [path for row in rows for path in row.overlays]
    for path in [*spec.configs, *overlays, spec.score.metrics]:
        if not Path(path).is_file():
            yield f"it names {path}, which does not exist{looked_for(path)}; correct the path."


def _problems_of_row(row: RowSpec, spec: SweepSpec) -> Iterator[str]:
    the_row = f"the row {row.name!r}"
    if (not row.train) + (row.adapters_of is not None) + (row.clips is not None) > 1:
        yield f"{the_row} sets several of train: false, adapters_of and clips; keep one."
    if row.clips and (row.overlays or row.options):
        yield f"{the_row} only scores clips; take its overlays and options away."
    if row.seeds is not None and not row.seeds:
        yield f"{the_row} has no seeds; give one, or leave seeds out."
    if row.adapters_of is None:
        return
    of = next((other for other in spec.rows if other.name == row.adapters_of), None)
    if of is None or not of.train or of.adapters_of or of.clips:
        yield (
            f"{the_row} takes the adapters of {row.adapters_of!r}, which is no row that trains; "
            "name one of this file."
        )
    elif missing := set(row.seeds or spec.seeds) - set(of.seeds or spec.seeds):
        yield (
            f"{the_row} wants the seeds {sorted(missing)} of {row.adapters_of!r}, which trains "
            "with others; give both the same."
        )
