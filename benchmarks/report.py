"""What every measurement leaves: its figures, and what they were measured on.

A result is one JSON file: ``benchmark``, ``command``, ``settings``, ``machine``, ``figures`` (what,
value, unit, limit, ratio, note) and ``details``, whose form is the benchmark's own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, table
from musicinfuser.atomic_files import write_text

GIB = 2**30
PACKAGES = ("torch", "diffusers", "peft", "transformers", "accelerate", "lightning", "triton")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of options that knows ``--out``."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="the result, a .json file")
    return made


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


def write_result(
    path: Path,
    benchmark: str,
    figures: Sequence[Figure],
    *,
    settings: argparse.Namespace,
    device: torch.device | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a result, whole or not at all, and print its table.

    Args:
        path: The JSON file.
        benchmark: Name of the module.
        figures: In the order of the table.
        settings: The options it ran with.
        device: Where it ran.
        details: What else is worth keeping.
    """
    options = {name: _plain(value) for name, value in vars(settings).items() if name != "out"}
    result = {
        "benchmark": benchmark,
        "command": command(benchmark),
        "settings": options,
        "machine": machine(device),
        "figures": [asdict(figure) | {"ratio": figure.ratio} for figure in figures],
        "details": details or {},
    }
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(table(figures))


def command(benchmark: str) -> str:
    """What was typed."""
    return " ".join(["python -m", f"benchmarks.{benchmark}", *sys.argv[1:]])


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


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
