"""librosa, which compiles parts of itself when it is imported, by one process at a time.

numba compiles them and keeps two files of each, a kernel and what calls it, which name each other
by a number of the process that wrote them. Where several processes compile at once, the files of
two of them are kept side by side, and from then on every call of such a part is a segmentation
fault, in every process (seen with numba 0.68 and librosa 0.11: half of `beat_track`).
"""

import functools
import importlib
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from musicinfuser.folder_lock import locked

MODULES = ("librosa.core", "librosa.util", "librosa.onset", "librosa.beat", "librosa.feature")
LOCK_FILE = "musicinfuser_compiling.lock"
_PAUSE_SECONDS = 0.2


@functools.cache
def import_librosa() -> ModuleType:
    """The package; the first time in an environment this takes a minute.

    Raises:
        ImportError: It is not installed.
    """
    lock = _compiled_folder() / LOCK_FILE
    while True:
        with locked(lock) as held:
            if held is not None:
                for name in MODULES:
                    importlib.import_module(name)
                return importlib.import_module("librosa")
        time.sleep(_PAUSE_SECONDS)


def _compiled_folder() -> Path:
    """Where numba keeps what it compiles: in a folder that is named, or beside the source."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named)
    found = find_spec("librosa")
    if found is not None and found.origin is not None:
        beside = Path(found.origin).parent
        if os.access(beside, os.W_OK):
            return beside / "__pycache__"
    return Path(tempfile.gettempdir(), f"numba_{os.getuid()}")
