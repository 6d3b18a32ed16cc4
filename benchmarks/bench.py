"""All that is measured or counted without a GPU, in one program, and the page of all results.

    python -m benchmarks.bench

It takes under five minutes of CPU time on one thread of a slow core, and prints each part's.
``--only loop data`` measures these again and leaves the other results as they are.
"""

import argparse
import gc
import os
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from benchmarks import results_table
from musicinfuser.tables import Row, markdown_table

WAN_1B = "--layers 30 --width 832 --train_frames 81 --sample_frames 81"
PARTS: dict[str, str] = {
    # First, since its processes begin with the peak memory of this one; then what is short.
    "construction": "construction",
    "loop": "loop",
    "data": "data",
    "scaling": "scaling",
    "checkpoint": "checkpoint",
    "plan": "plan",
    "meta_memory": "meta_memory",
    "meta_memory_autocast": "meta_memory --autocast --policies full self_attention attention "
    "--frames 73",
    "memory_24gb": "memory_plan --profile 24gb --cap_gib 22",
    "memory_wan_1b": f"memory_plan --profile wan_1b {WAN_1B} "
    "--policies full self_attention attention --cap_gib 22.35",
    "memory_wan_1b_24gb": f"memory_plan --profile wan_1b+wan_24gb {WAN_1B} --cap_gib 8.38",
    "memory_wan_5b": "memory_plan --profile wan_5b --layers 30 --width 832 --train_frames 73 "
    "--sample_frames 73 --cap_gib 22.35",
    "memory_wan_14b_24gb": "memory_plan --profile wan_14b+wan_14b_24gb --layers 40 --width 832 "
    "--train_frames 81 --sample_frames 81 --cap_gib 22.35",
}
"""By the result's file: the benchmark and its options."""


def measure(names: Sequence[str], folder: Path) -> list[Row]:
    """Run parts one after the other; CPU seconds of each, those of its processes included."""
    # Times are those of the CPU, in which threads that wait for each other would count.
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name in names:
        benchmark, *options = shlex.split(PARTS[name])
        began = _cpu_seconds()
        print(f"\n{name}", flush=True)
        # The result holds this command, so no place outside the repository is in it.
        out = os.path.relpath(folder / f"{name}.json")
        if failed := import_module(f"benchmarks.{benchmark}").main([*options, "--out", out]):
            raise SystemExit(failed)
        gc.collect()
        rows.append({"part": name, "s of CPU": _cpu_seconds() - began})
        print(f"{rows[-1]['s of CPU']:.1f} s of CPU", flush=True)
    return rows


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the page, print what it took."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--folder", type=Path, default=results_table.RESULTS)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    settings = options.parse_args(arguments)
    rows = measure(settings.only, settings.folder)
    results_table.main(["--folder", str(settings.folder)])
    rows.append({"part": "in all, imports included", "s of CPU": _cpu_seconds()})
    print(markdown_table(rows, num_digits=1))


if __name__ == "__main__":
    main()
