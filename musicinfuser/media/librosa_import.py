"""librosa, which compiles parts of itself when it is imported, by one process at a time.

numba compiles them and keeps two files of each, a kernel and what calls it, which name each other
by a number of the process that wrote them. Where several processes compile at once, the files of
two of them are kept side by side, and from then on every call of such a part is a segmentation
fault, in every process (seen with numba 0.68 and librosa 0.11, whose own place is beside librosa's
source). So here they lie in a folder of their own, to which one process at a time writes.
"""

import functools
import importlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from musicinfuser.folder_lock import locked

MODULES = ("librosa.core", "librosa.util", "librosa.onset", "librosa.beat", "librosa.feature")
LOCK_FILE = "musicinfuser_compiling.lock"
_PAUSE_SECONDS = 0.2


@functools.cache
def import_librosa() -> ModuleType:
    """The package; the first time this takes a minute.

    What is compiled is kept in ``NUMBA_CACHE_DIR`` where that is set, else among the user's caches.

    Raises:
        ImportError: It is not installed.
    """
    import numba

    folder = _compiled_folder()
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    while True:
        with locked(folder / LOCK_FILE) as held:
            if held is not None:
                for name in MODULES:
                    importlib.import_module(name)
                return importlib.import_module("librosa")
        time.sleep(_PAUSE_SECONDS)


def _compiled_folder() -> Path:
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(caches, "musicinfuser", "numba")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir(), f"musicinfuser_numba_{os.getuid()}")
