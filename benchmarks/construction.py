"""CPU seconds and memory until the model is built, on the meta device and with random weights.

    python -m benchmarks.construction --out benchmarks/results/construction.json

The full size is built on the meta device. With weights (``config:``, drawn on the CPU) as many
blocks as given, each number in a process of its own, since a process never gives its peak back;
what a block takes is the slope, and the full size's figure follows from it.
"""

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from benchmarks.profiles import adapted, backbone, build_on_meta, read_profile
from benchmarks.report import GIB, Figure, command_of, parser

NUM_LAYERS = 48


def build(num_layers: int | None, *, size: str) -> dict[str, float]:
    """Build in this process; ``num_layers`` None is the full size on the meta device."""
    torch.manual_seed(0)
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


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """The meta device, then every number of blocks."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned, max_tasks_per_child=1) as pool:
        found = pool.map(partial(build, size=settings.size), [None, *settings.layers])
        meta, built = next(found), dict(zip(settings.layers, found, strict=True))
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


OPTIONS = parser(__doc__, "size", layers=[2, 4])
main = command_of("construction", OPTIONS, measure)

if __name__ == "__main__":
    main()
