"""What the device itself can do: matrix products, copies within it, copies from the host.

    python -m benchmarks.device --out runs/device.json

These are the ceilings that the other figures stand under. Other benchmarks take from here the cap
of the GPU's memory, and which kernels a step ran.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.limits import peak_tflops
from benchmarks.report import GIB, Figure, command_of, parser
from musicinfuser.device_speed import product_tflops, timed

# Bytes of a buffer that is copied.
BUFFER_BYTES = {"cuda": 2 * GIB, "cpu": GIB // 64}
# Parts of names of CUDA kernels: cuDNN's, flash attention's and cutlass's; of matrix products.
ATTENTION_NAMES = ("flash", "fmha", "sdpa", "attention")
PRODUCT_NAMES = ("gemm", "nvjet", "cutlass", "xmma", "cublas")
COPY_NAMES = ("memcpy", "memset")
# Operations that read a value from the device and so wait for it.
WAITING = ("aten::_local_scalar_dense", "aten::nonzero")


def cap_memory(settings: argparse.Namespace, device: torch.device) -> None:
    """Pretend that the GPU is smaller."""
    if settings.memory_cap_gib is not None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = min(settings.memory_cap_gib * GIB / total, 1.0)
        torch.cuda.set_per_process_memory_fraction(share, device)


def kernels_of(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Profile one call.

    Returns:
        ``attention``: fused attention operations by name with their calls, forward and backward;
        ``attention_kernels``: the CUDA kernels among them; ``waits``: calls that wait for the
        device; ``share``: of the device's time, what attention, products, copies and the rest
        took (CUDA only).
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    events = recorded.key_averages()
    on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    operations = [e for e in events if e.device_type == torch.autograd.DeviceType.CPU]
    found: dict[str, Any] = {
        "attention": {
            e.key.removeprefix("aten::"): e.count
            for e in operations
            if e.key.startswith("aten::_scaled_dot_product_")
        },
        "waits": {e.key.removeprefix("aten::"): e.count for e in operations if e.key in WAITING},
    }
    if on_device:
        times: dict[str, float] = {}
        for event in on_device:
            kind = kind_of(event.key)
            times[kind] = times.get(kind, 0.0) + event.self_device_time_total
        total = sum(times.values())
        found["share"] = {kind: round(time / total, 4) for kind, time in times.items()}
        found["attention_kernels"] = {
            e.key[:120]: e.count for e in on_device if kind_of(e.key) == "attention"
        }
    return found


def kind_of(kernel: str) -> str:
    """What a CUDA kernel is for, by its name."""
    name = kernel.lower()
    for kind, parts in (
        ("attention", ATTENTION_NAMES),
        ("products", PRODUCT_NAMES),
        ("copies", COPY_NAMES),
    ):
        if any(part in name for part in parts):
            return kind
    return "the rest"


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
