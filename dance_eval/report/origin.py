"""Where numbers come from: versions, what the metrics measure, and which clips have no value."""

import importlib
import inspect
import platform
import re
from importlib.metadata import PackageNotFoundError, version

from dance_eval.metrics.report import Document
from musicinfuser.moved_names import new_name
from musicinfuser.tables import Row

PACKAGES = (
    "torch", "torchvision", "torchmetrics", "numpy", "av", "pillow", "librosa", "opencv-python",
    "opencv-python-headless", "transformers", "diffusers", "lightning",
)  # fmt: skip
_VALUES = re.compile(r"^Values[^\n]*:\n((?:    [^\n]*\n|\n)+)", re.MULTILINE)


def versions() -> dict[str, str]:
    """Python and the packages that numbers may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def failed_rows(document: Document) -> list[Row]:
    """One row per clip and reason: what could not be scored, by which metrics, and why."""
    rows: list[Row] = []
    for clip in document["clips"]:
        by_reason: dict[str, list[str]] = {}
        for metric, reason in clip["failures"].items():
            by_reason.setdefault(reason, []).append(metric)
        names = {"system": clip["system"], "clip": clip["file"]}
        for reason, metrics in by_reason.items():
            rows.append({**names, "metrics": ", ".join(metrics), "reason": reason})
    for path in document["unlisted"]:
        why = {"metrics": "all", "reason": "in no line of its manifest"}
        rows.append({"system": "", "clip": path, **why})
    return rows


def meanings(document: Document) -> list[tuple[str, str, str]]:
    """Names, summary and values of every metric's class, metrics of one class together."""
    names: dict[str, list[str]] = {}
    for spec in document.get("metrics", []):
        place = spec["class_path"]
        own = spec.get("init_args", {}).get("name", place.rpartition(".")[2])
        names.setdefault(place, []).append(own)
    found = []
    for place, own in names.items():
        # A metrics.json of an earlier version names its classes as they were called then.
        module, _, kind = (new_name(place) or place).rpartition(".")
        found.append((", ".join(own), *described(getattr(importlib.import_module(module), kind))))
    return found


def described(kind: type) -> tuple[str, str]:
    """First sentences of a class's docstring, and its section of values or that of its base."""
    text = inspect.cleandoc(kind.__doc__ or "")
    return " ".join(text.partition("\n\n")[0].split()), next(
        filter(None, map(_values, kind.__mro__)), ""
    )


def _values(kind: type) -> str:
    found = _VALUES.search(inspect.cleandoc(kind.__doc__ or "") + "\n")
    return inspect.cleandoc(found.group(1)) if found else ""
