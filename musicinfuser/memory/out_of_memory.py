"""A device that is too small, said in one sentence with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from musicinfuser.errors import UserError

# Of torch's allocator for the CPU and of CUDA outside torch's own.
_SIGNS = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


class OutOfMemoryError(UserError):
    """The device's memory is too small for what was asked."""

    def __init__(self, message: str, *, doing: str = "this") -> None:
        super().__init__(message)
        self.doing = doing
        """What needs the memory; whoever has other options can say other remedies."""


@contextmanager
def named_out_of_memory(doing: str, remedy: str) -> Iterator[None]:
    """Within, errors of torch that mean a full memory become ours.

    Args:
        doing: What needs the memory.
        remedy: Which profile or option to use.

    Raises:
        OutOfMemoryError: The device, or the host, ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not (is_full or any(sign in str(error) for sign in _SIGNS)):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        # torch's allocator for the CPU begins with its own place in the sources.
        first = text[max(text.find("DefaultCPUAllocator"), 0) :].split(". ")[0]
        raise OutOfMemoryError(
            f"the device's memory is too small for {doing}: {remedy}. ({first})", doing=doing
        ) from error
