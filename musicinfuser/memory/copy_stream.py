"""Copies between host and device that run beside the computation."""

import functools

import torch
from torch import Tensor


class CopyStream:
    """A queue of copies of one device; on a device without streams they run in line.

    A copy starts after everything that was queued on the device before it, and runs beside what is
    queued after it. So it reads what is already computed, and may overwrite what nothing reads any
    more. Whatever needs its result waits for it explicitly.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        """Queue ``target <- source``; both stay alive until `wait` took what this returns."""
        with torch.no_grad():
            if self._stream is None:
                target.copy_(source)
                return None
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                target.copy_(source, non_blocking=True)
                return self._stream.record_event()

    def wait(self, copied: torch.cuda.Event | None) -> None:
        """What is queued on the device from here on starts after this copy; the host goes on."""
        if copied is not None:
            torch.cuda.current_stream(self.device).wait_event(copied)

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the device that is not reused while a copy may still need it."""
        with torch.inference_mode(mode=False):
            memory = torch.empty(size, dtype=dtype, device=self.device)
        if self._stream is not None:
            memory.record_stream(self._stream)
        return memory


@functools.cache
def copy_stream(device: torch.device, purpose: str) -> CopyStream:
    """The one queue of a device for a purpose."""
    return CopyStream(device)
