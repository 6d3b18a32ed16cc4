"""What every measurement leaves: its figures, and what they were measured on.

A result is one JSON file: ``benchmark``, ``command``, ``settings``, ``machine``, ``figures`` (what,
value, unit, limit, ratio, note) and ``details``, whose form is the benchmark's own.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from musicinfuser.atomic_files import write_text
from musicinfuser.tables import Row, markdown_table

GIB = 2**30
PACKAGES = ("torch", "diffusers", "peft", "transformers", "accelerate", "lightning", "triton")


@dataclass(frozen=True)
class Figure:
    """One measured value and what it can be at best, or must not exceed."""

    what: str
    value: float | int | str | None
    unit: str
    limit: float | None = None
    note: str = ""
    """Where the limit comes from, or what the figure leaves out."""

    @property
    def ratio(self) -> float | None:
        """Value over limit."""
        if self.limit is None or not isinstance(self.value, int | float) or not self.limit:
            return None
        return self.value / self.limit

    def row(self) -> dict[str, str]:
        """As a line of a table."""
        return {
            "what": self.what, "value": _short(self.value), "unit": self.unit,
            "limit": _short(self.limit), "value / limit": _short(self.ratio), "note": self.note,
        }  # fmt: skip


def table(figures: Sequence[Figure]) -> str:
    """Figures beside their limits."""
    rows: list[Row] = [figure.row() for figure in figures]
    return markdown_table(rows)


def read_figures(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """A result and its figures."""
    result = json.loads(path.read_text())
    names = ("what", "value", "unit", "limit", "note")
    return result, [Figure(*(row[name] for name in names)) for row in result["figures"]]


def _short(value: float | int | str | None) -> str:
    """Four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


COMMON_OPTIONS: dict[str, dict[str, Any]] = {
    "profile": {"default": "base", "help": "overlays of base.yaml, joined by +"},
    "size": {"choices": ("full", "small"), "default": "full"},
    "layers": {"type": int, "default": 48},
    "frames": {"type": int, "default": 73},
    "height": {"type": int, "default": 480},
    "width": {"type": int, "default": 848},
    "text_tokens": {"type": int, "default": 32, "help": "valid tokens of the caption"},
    "device": {"default": "cuda" if torch.cuda.is_available() else "cpu"},
    "memory_cap_gib": {"type": float, "help": "as much of the GPU's memory may be used"},
}
"""Options of more than one benchmark."""
SIZE_OPTIONS = ("size", "frames", "height", "width")
MODEL_OPTIONS = tuple(COMMON_OPTIONS)


def parser(description: str | None, *common: str, **own: Any) -> argparse.ArgumentParser:
    """A parser of options that knows ``--out``.

    Args:
        description: The benchmark's docstring, of which the first line is shown.
        common: Names in `COMMON_OPTIONS`.
        own: Options of the benchmark: a default (a list for several values), or what
            ``add_argument`` takes.
    """
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="the result, a .json file")
    for name in common:
        made.add_argument(f"--{name}", **COMMON_OPTIONS[name])
    for name, given in own.items():
        if not isinstance(given, dict):
            first = given[0] if isinstance(given, list) else given
            given = {"default": given, "type": type(first)}
            given |= {"nargs": "+"} if isinstance(given["default"], list) else {}
        made.add_argument(f"--{name}", **given)
    return made


Measured = tuple[list[Figure], dict[str, Any]]
"""Figures in the order of the table, and what else is worth keeping."""


def command_of(
    benchmark: str,
    options: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Measured],
) -> Callable[..., int]:
    """``main(arguments=None)`` of a benchmark: measures, prints and writes.

    It returns 1 if ``details["failed"]`` names anything.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        given = sys.argv[1:] if arguments is None else arguments
        settings = options.parse_args(given)
        figures, details = measure(settings)
        write_result(
            settings.out, benchmark, figures, settings=settings, details=details, arguments=given
        )
        return 1 if details.get("failed") else 0

    return main


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Hardware, load and versions; nothing that names the machine's owner or folders."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "logical cpus": os.cpu_count(),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": "cpu",
    }
    if device is not None and device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "device_gib": round(torch.cuda.get_device_properties(device).total_memory / GIB, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def result_of(
    benchmark: str,
    figures: Sequence[Figure],
    *,
    settings: argparse.Namespace,
    details: Mapping[str, Any] | None = None,
    found_on: Mapping[str, Any] | None = None,
    arguments: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A result as its file has it.

    Args:
        benchmark: Its module, in ``benchmarks`` or with the package that it is in.
        figures: In the order of the table.
        settings: The options it ran with; ``device`` among them is where it ran.
        details: What else is worth keeping.
        found_on: As `machine` gives it; None is this process's.
        arguments: What was typed after the benchmark's name; None is this process's.
    """
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(settings).items()
        if name != "out"
    }
    typed = sys.argv[1:] if arguments is None else arguments
    module = benchmark if "." in benchmark else f"benchmarks.{benchmark}"
    return {
        "benchmark": benchmark,
        "command": " ".join(["python -m", module, *typed]),
        "settings": options,
        "machine": found_on or machine(torch.device(getattr(settings, "device", "cpu"))),
        "figures": [asdict(figure) | {"ratio": figure.ratio} for figure in figures],
        "details": details or {},
    }


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, whole or not at all."""
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def write_result(path: Path, benchmark: str, figures: Sequence[Figure], **options: Any) -> None:
    """Write a result and print its table; options as of `result_of`."""
    write_json(path, result_of(benchmark, figures, **options))
    print(table(figures))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(found.stdout.split()), None)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile; of fewer than ten values the largest stands for the latter."""
    many = len(seconds) >= 10
    return {
        "median_s": median(seconds),
        "p90_s": quantiles(seconds, n=10, method="inclusive")[-1] if many else max(seconds),
    }


def silence_lightning() -> None:
    """Lightning without its hints, in this process from here on: the table is all that is read."""
    # Machines that only measure a GPU need no Lightning.
    from callbacks.terminal import quiet_lightning

    quiet_lightning()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter is intended.*")
