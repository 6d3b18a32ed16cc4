"""How fast a device works, timed on it."""

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, whose work goes to the current stream of ``device``.

    By events on a GPU, which do not count waiting on the host twice.
    """
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    began_event, ended_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    began_event.record()
    run()
    ended_event.record()
    ended_event.synchronize()
    return began_event.elapsed_time(ended_event) / 1e3


def product_tflops(device: torch.device) -> float:
    """The rate of products of random numbers: bf16 on a GPU, fp32 on a CPU."""
    is_cuda = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if is_cuda else (512, torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    seconds = min(timed(lambda: a @ b, device) for _ in range(20))
    return 2 * size**3 / seconds / 1e12
