import ast
import os
import subprocess
import sys

import pytest

from musicinfuser.folder_lock import is_locked, locked
from musicinfuser.media import librosa_import
from tests.conftest import ROOT

OWN = "musicinfuser/media/librosa_import.py"


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Where the lock lies; nothing is imported but what a test names."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(librosa_import, "MODULES", ())
    librosa_import.import_librosa.cache_clear()
    yield tmp_path / librosa_import.LOCK_FILE
    librosa_import.import_librosa.cache_clear()


def test_the_lock_is_held_while_modules_are_imported(lock, monkeypatch):
    held = []

    def note(name):
        held.append((name, is_locked(lock)))

    monkeypatch.setattr(librosa_import, "MODULES", ("one", "two"))
    monkeypatch.setattr(librosa_import.importlib, "import_module", note)
    librosa_import.import_librosa()
    assert held == [("one", True), ("two", True), ("librosa", True)]
    assert not is_locked(lock)


def test_a_second_process_waits(lock, monkeypatch):
    pauses = []
    monkeypatch.setattr(librosa_import.importlib, "import_module", lambda name: name)
    with locked(lock) as descriptor:
        assert descriptor is not None

        def release(seconds):
            pauses.append(seconds)
            if len(pauses) == 1:
                # What it waits for ends meanwhile.
                lock.unlink()

        monkeypatch.setattr(librosa_import.time, "sleep", release)
        assert librosa_import.import_librosa() == "librosa"
    assert pauses


def test_nothing_else_imports_it():
    found = []
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith((".", "runs/")) or name == OWN:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [name for each in names if each.split(".")[0] == "librosa"]
    assert not found


def test_what_is_compiled_lies_among_the_users_caches_or_else_in_a_temporary_folder(
    tmp_path, monkeypatch
):
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(librosa_import, "MODULES", ())
    monkeypatch.setattr(librosa_import.importlib, "import_module", lambda name: name)
    librosa_import.import_librosa.cache_clear()
    assert librosa_import.import_librosa() == "librosa"
    assert numba.config.CACHE_DIR == str(tmp_path / "caches" / "musicinfuser" / "numba")

    (tmp_path / "file").touch()  # no folder can be made in it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(librosa_import.tempfile, "gettempdir", lambda: str(tmp_path))
    librosa_import.import_librosa.cache_clear()
    librosa_import.import_librosa()
    assert numba.config.CACHE_DIR == str(tmp_path / f"musicinfuser_numba_{os.getuid()}")
    librosa_import.import_librosa.cache_clear()


@pytest.mark.slow  # librosa compiles itself
def test_processes_that_start_at_once_in_a_new_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    program = (
        "import numpy as np\n"
        "from musicinfuser.media.librosa_import import import_librosa\n"
        "noise = np.random.default_rng(0).random(400)\n"
        "for kind in (np.float32, np.float64):\n"
        "    import_librosa().beat.beat_track(onset_envelope=noise.astype(kind))\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    # A later process takes what they left.
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
