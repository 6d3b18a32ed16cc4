"""Copies between host and device that run beside the computation."""

import functools

import torch
from torch import Tensor


class SideStream:
    """A queue of copies of one device; on a device without streams they run in line.

    One rule makes its use safe: a copy starts after everything that was asked of the device before
    it, and runs beside everything that is asked after it. So it reads what is already computed, and
    may overwrite what nobody asks for any more. What needs its result waits for it explicitly.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        """Ask for ``target <- source``; both stay alive until the copy was waited for.

        Returns:
            What `wait` takes.
        """
        with torch.no_grad():
            if self._stream is None:
                target.copy_(source)
                return None
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                target.copy_(source, non_blocking=True)
                return self._stream.record_event()

    def wait(self, copied: torch.cuda.Event | None) -> None:
        """What is asked of the device from here on starts after this copy; the host goes on."""
        if copied is not None:
            torch.cuda.current_stream(self.device).wait_event(copied)

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the device that is given to nobody else while a copy may still use it."""
        with torch.inference_mode(mode=False):
            memory = torch.empty(size, dtype=dtype, device=self.device)
        if self._stream is not None:
            memory.record_stream(self._stream)
        return memory


@functools.cache
def side_stream(device: torch.device, purpose: str) -> SideStream:
    """The one queue of a device for a purpose."""
    return SideStream(device)
