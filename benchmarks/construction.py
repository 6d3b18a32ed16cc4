"""CPU seconds and memory until the model is built, on the meta device and with random weights.

    python -m benchmarks.construction --out benchmarks/results/construction.json

The full size is built on the meta device. With weights (``config:``, drawn on the CPU) as many
blocks as given, each number in a process of its own, since a process never gives its peak back;
what a block takes is the slope, and the full size's figure follows from it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.profiles import adapted, backbone, build_on_meta, read_profile
from benchmarks.report import GIB, Figure, parser, write_result

NUM_LAYERS = 48


def build(num_layers: int | None, *, size: str) -> dict[str, float]:
    """Build in this process; ``num_layers`` None is the full size on the meta device."""
    before = _peak_bytes()
    began = time.process_time()
    config = read_profile()
    if num_layers is None:
        model = build_on_meta(config, size=size)
    else:
        base = backbone(config, num_layers=num_layers, size=size)
        model = adapted(base, config, compile_blocks=False)
    seconds = time.process_time() - began
    held = sum(p.nbytes for p in model.parameters() if not p.is_meta)
    return {"seconds": seconds, "before": before, "peak": _peak_bytes(), "held": held}


def in_a_process(num_layers: int | None, size: str) -> dict[str, float]:
    """The same in a fresh process."""
    asked = "meta" if num_layers is None else str(num_layers)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.construction", "--child", asked, "--size", size],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """The meta device, then every number of blocks."""
    meta = in_a_process(None, settings.size)
    built = {n: in_a_process(n, settings.size) for n in settings.layers}
    figures = [
        Figure("all 48 blocks on the meta device", meta["seconds"], "s of CPU"),
        Figure("all 48 blocks on the meta device: peak RAM over the imports",
               (meta["peak"] - meta["before"]) / GIB, "GiB"),
    ]  # fmt: skip

    def add(what: str, found: dict[str, float], peak: str, note: str = "") -> None:
        figures.extend([
            Figure(what, found["seconds"], "s of CPU"),
            Figure(peak, found["peak"] / GIB, "GiB", found["held"] / GIB, note),
        ])  # fmt: skip

    for n, found in built.items():
        over = found | {"peak": found["peak"] - found["before"]}
        add(f"{n} blocks with weights", over, f"{n} blocks: peak RAM over the imports",
            "limit: what is held at the end")  # fmt: skip
    few, many = min(built), max(built)
    if few < many:
        start = built[many] | {"peak": built[many]["peak"] - built[many]["before"]}
        slope = {key: (built[many][key] - built[few][key]) / (many - few) for key in start}
        whole = {key: start[key] + slope[key] * (NUM_LAYERS - many) for key in start}
        add("of one block", slope, "of one block: peak RAM")
        add("48 blocks by the slope", whole, "48 blocks by the slope: peak RAM",
            "adapters in 16 blocks vary it a little")  # fmt: skip
    return figures, {"meta": meta, "built": built}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, nargs="+", default=[2, 6])
    options.add_argument("--size", choices=("full", "small"), default="full")
    options.add_argument("--child", help=argparse.SUPPRESS)
    next(a for a in options._actions if a.dest == "out").required = False
    settings = options.parse_args(arguments)
    if settings.child:
        torch.manual_seed(0)
        num_layers = None if settings.child == "meta" else int(settings.child)
        print(json.dumps(build(num_layers, size=settings.size)))
        return
    del settings.child
    figures, details = measure(settings)
    write_result(settings.out, "construction", figures, settings=settings, details=details)


if __name__ == "__main__":
    main()
