"""The report of a check, and the parts of a config that it is about.

Each part is built by itself, so that one mistake does not hide the next.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_args, get_type_hints

import lightning.pytorch as L
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_modules import MusicInfuserModule
from musicinfuser.errors import links, user_error
from musicinfuser.tables import Row, markdown_table

GB = 1e9
MUSIC_INFUSER = "lightning_modules.MusicInfuserModule"
CALLBACK_KEYS = ("beta_annealing", "sample_generation", "video_writer")


@dataclass
class Report:
    """Sections in the order they were added, and every problem once."""

    sections: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, title: str, *parts: str) -> None:
        """Add a section; empty parts are left out."""
        text = "\n".join(part.rstrip("\n") for part in parts if part)
        self.sections.append((title, text))

    def problem(self, sentence: str) -> None:
        """Note a problem, unless it is known."""
        if sentence not in self.problems:
            self.problems.append(sentence)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note what this program refuses in the block, and go on after it.

        Raises:
            ValueError: One that is no `UserError`: a fault of this program.
        """
        try:
            yield
        except Exception as error:
            refusal = user_error(error)
            if refusal is None:
                raise
            self.problem(str(refusal))

    def text(self) -> str:
        """The whole report."""
        lines = [f"{title}:\n{text}\n" for title, text in self.sections]
        if self.problems:
            lines.append("\n".join(["problems:", *(f"  - {p}" for p in self.problems)]))
        else:
            lines.append("no problems found")
        return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Rows as an aligned table, numbers with two digits."""
    return markdown_table(rows, num_digits=2)


def gigabytes(num_bytes: float) -> float:
    """Bytes as GB of 10^9, the unit of disks and of the memory table."""
    return num_bytes / GB


def count(number: int, noun: str) -> str:
    """A number with its noun: ``1 clip``, ``2 clips``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass
class Settings:
    """What could be built of a config."""

    trainer: Namespace
    """The trainer's options; its callbacks are built."""
    model: L.LightningModule | None = None
    data: L.LightningDataModule | None = None
    callbacks: dict[str, Any] = field(default_factory=dict)
    """The callbacks with keys of their own, by key."""
    groups: dict[str, Any] = field(default_factory=dict)
    """Options of the model, groups of options as their dataclass; those that are wrong are left
    out."""
    ckpt_path: str | None = None
    configs: Sequence[str] = ()
    """The files it was given, in their order."""


def build(parser: ArgumentParser, config: Namespace, report: Report) -> Settings:
    """Build model, data and callbacks; what cannot be built becomes a problem and stays None."""

    def one(key: str) -> Any:
        try:
            with report.collecting():
                return parser.instantiate_classes(Namespace({key: config[key]}))[key]
        except (ValueError, MisconfigurationException) as error:
            reason = _misconfiguration(error)
            if reason is None:
                raise
            report.problem(f"{key}: {reason}")
        return None

    settings = Settings(trainer=one("trainer") or config["trainer"])
    settings.ckpt_path = config.get("ckpt_path")
    num_problems = len(report.problems)
    settings.groups = _groups(config["model"], report)
    if len(report.problems) == num_problems:
        settings.model = one("model")
    settings.data = one("data")
    settings.callbacks = {key: one(key) for key in CALLBACK_KEYS if config.get(key) is not None}
    return settings


def _misconfiguration(error: BaseException | None) -> str | None:
    """What Lightning says against an option, without the pages about types around it."""
    found = (link for link in links(error) if isinstance(link, MisconfigurationException))
    return next((" ".join(str(link).split()) for link in found), None)


def _groups(model: Namespace, report: Report) -> dict[str, Any]:
    options = vars(model["init_args"]) if model.get("init_args") else {}
    if model["class_path"] != MUSIC_INFUSER:
        return {}
    hints = get_type_hints(MusicInfuserModule.__init__)
    groups: dict[str, Any] = {}
    for name, value in options.items():
        kinds = [k for k in (hints.get(name), *get_args(hints.get(name))) if is_dataclass(k)]
        if not (kinds and isinstance(value, Namespace)):
            groups[name] = value
            continue
        with report.collecting():
            groups[name] = kinds[0](**vars(value))  # type: ignore[operator]
    return groups
