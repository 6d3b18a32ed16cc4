"""Whether code on a GPU makes the host wait."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def nothing_waits() -> Iterator[None]:
    """Every wait of the host for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
