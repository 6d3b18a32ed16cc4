"""What the device itself can do: matrix products, copies within it, copies from the host.

    python -m benchmarks.device --out runs/device.json

These are the ceilings that the other figures stand under.
"""

import argparse
from typing import Any

import torch

from benchmarks.limits import peak_tflops, product_tflops
from benchmarks.report import GIB, Figure, command_of, parser, timed

# Bytes of a buffer that is copied.
BUFFER_BYTES = {"cuda": 2 * GIB, "cpu": GIB // 64}


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """The best of several of each."""
    device = torch.device(settings.device)
    peak, source = peak_tflops(device)
    size = BUFFER_BYTES[device.type]
    memory, other = (torch.randint(0, 255, (size,), dtype=torch.uint8) for _ in range(2))
    if device.type == "cuda":
        memory = memory.pin_memory()
    here, there = torch.empty_like(memory, device=device), other.to(device)

    def rate(run: Any, num_bytes: int) -> float:
        run()
        return num_bytes / min(timed(run, device) for _ in range(settings.repeats)) / 1e9

    figures = [
        Figure("matrix products of random numbers", product_tflops(device), "TFLOP/s", peak,
               f"limit: {source}"),
        Figure("copy within the device, read and written",
               rate(lambda: there.copy_(here), 2 * size), "GB/s"),
        Figure("copy from pinned memory of the host",
               rate(lambda: here.copy_(memory, non_blocking=True), size), "GB/s"),
        Figure("copy to pinned memory of the host",
               rate(lambda: memory.copy_(here, non_blocking=True), size), "GB/s"),
    ]  # fmt: skip
    return figures, {}


OPTIONS = parser(__doc__, "device", repeats=10)
main = command_of("device", OPTIONS, measure)

if __name__ == "__main__":
    main()
