"""A lock ends with its process, however that ends."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from musicinfuser.folder_lock import holder, is_locked, locked
from tests.conftest import ROOT

# Holds a lock beside a forked child that outlives it, as a data loader's worker may.
HOLDER = """
import os, sys, time
from pathlib import Path
from musicinfuser.folder_lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


def test_a_killed_process_lets_go_though_its_workers_live(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert is_locked(path)
        assert holder(path).startswith(f"process {process.pid} on ")
        with locked(path) as lock:
            assert lock is None
        assert holder(path).startswith(f"process {process.pid} on "), "who fails writes nothing"
        process.kill()
        process.wait()
        os.kill(child, 0)
        with locked(path) as lock:
            assert lock is not None
            assert holder(path).startswith(f"process {os.getpid()} on ")
        assert not is_locked(path)
    finally:
        os.kill(child, 9)
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"lock: this file system has no locks \("):
        with locked(tmp_path / "lock") as lock:
            assert lock is not None
    assert not is_locked(tmp_path / "lock")


def test_other_errors_stay_errors(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "lock"):
        pass
