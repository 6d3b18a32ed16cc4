"""A device that is too small, said in one sentence with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OutOfMemoryError(ValueError):
    """The device's memory is too small for what was asked."""


@contextmanager
def named_out_of_memory(doing: str, remedy: str) -> Iterator[None]:
    """Within, torch's error becomes ours.

    Args:
        doing: What needs the memory.
        remedy: Which profile or option to use.

    Raises:
        OutOfMemoryError: The device ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).strip().split(". ")[0]
        raise OutOfMemoryError(
            f"the device's memory is too small for {doing}: {remedy}. ({first})"
        ) from error
