"""Large packages, loaded in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Within, large packages are imported: Python looks for no garbage there, nor in them later.

    Modules stay until the process ends. Looking through all of them again and again takes a fifth
    of the time that torch and lightning need, and some of every run's.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
