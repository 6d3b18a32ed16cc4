"""Which kernels a step ran, and what its time went to."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# Parts of names of CUDA kernels: cuDNN's, flash attention's and cutlass's; of matrix products.
ATTENTION_NAMES = ("flash", "fmha", "sdpa", "attention")
PRODUCT_NAMES = ("gemm", "nvjet", "cutlass", "xmma", "cublas")
COPY_NAMES = ("memcpy", "memset")
# Operations that read a value from the device and so wait for it.
WAITING = ("aten::_local_scalar_dense", "aten::nonzero")


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
