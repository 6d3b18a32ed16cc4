"""Parameters in host memory beside a model on a device, and copies beside the computation."""

import functools
import mmap
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError

# cudaHostRegisterPortable: page-locked for every device of the process.
_PORTABLE = 1


@contextmanager
def kept_on_cpu(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within, ``Module.to`` and its like find empty values; after it the old ones are back.

    For a module's own ``_apply``, through which every move goes. The parameters are frozen and no
    part of an optimizer.

    Raises:
        UserError: The move would have changed their type.
    """
    held = [(parameter, parameter.data) for parameter in parameters]
    for parameter, value in held:
        parameter.data = value.new_empty(0)
    wanted = {}
    try:
        yield
        wanted = {value.dtype: parameter.dtype for parameter, value in held}
    finally:
        for parameter, value in held:
            parameter.data = value
    for old, new in wanted.items():
        if new != old:
            raise UserError(
                f"weights kept in host memory are {old} and cannot become {new}; load the backbone "
                "in the type you need (backbone.dtype)."
            )


def own_pages(num_bytes: int) -> Tensor:
    """Host memory ``(num_bytes,)`` uint8 that shares its pages with nothing else.

    A page can be locked once only, and a file's not at all.
    """
    memory = torch.empty(num_bytes + 2 * mmap.PAGESIZE, dtype=torch.uint8, device="cpu")
    start = -memory.data_ptr() % mmap.PAGESIZE
    return memory[start : start + num_bytes]


def host_empty(like: Tensor) -> Tensor:
    """Host memory for a copy of a tensor, page-locked if that is on a GPU."""
    device = "meta" if like.is_meta else "cpu"
    return torch.empty(like.shape, dtype=like.dtype, device=device, pin_memory=like.is_cuda)


def page_lock(memory: Tensor) -> None:
    """Lock host memory where it lies, so that copies from it can run beside the computation.

    torch's own pinned memory comes in powers of two, which for weights costs half as much again.

    Raises:
        UserError: The system refuses.
    """
    if memory.nbytes == 0 or memory.is_pinned():
        return
    cudart = torch.cuda.cudart()
    error = int(cudart.cudaHostRegister(memory.data_ptr(), memory.nbytes, _PORTABLE))
    if error:
        raise UserError(
            f"{memory.nbytes / 1e9:.2f} GB of host memory for weights could not be page-locked "
            f"(CUDA error {error}); free some memory or raise the limit `ulimit -l`."
        )
    weakref.finalize(memory, cudart.cudaHostUnregister, memory.data_ptr()).atexit = False


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
