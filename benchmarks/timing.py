"""Seconds, on a clock that suits the device, and what several of them come to."""

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any

import torch


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call: by events on a GPU, which do not count waiting on the host twice.

    Args:
        run: What is timed; its work must go to the current stream of ``device``.
        device: Where it runs.
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


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile; of fewer than ten values the largest stands for the latter."""
    many = len(seconds) >= 10
    return {
        "median_s": median(seconds),
        "p90_s": quantiles(seconds, n=10, method="inclusive")[-1] if many else max(seconds),
    }
