"""Processes of benchmarks: their codes, their memory, and their end at a limit."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import PartError, call_apart, memory_of, memory_watched, run_apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is told apart on Linux")


def hold(gib: float, path: str) -> dict[str, float]:
    """In another process: memory of its own and a mapped file, both touched."""
    before = memory_of(os.getpid())
    own = np.ones(int(gib * 2**30), np.uint8)
    mapped = np.memmap(path, np.uint8, "r")
    total = int(mapped[::4096].sum()) + int(own[0])
    time.sleep(0.2)
    return {"total": total} | {f"{name}_before": value for name, value in before.items()}


def test_own_memory_and_mapped_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2**28))
    found = call_apart(hold, 0.5, str(path))
    assert found["total"] == 1 and found["seconds"] > 0.2 and found["cpu_seconds"] > 0
    assert found["own_gib"] - found["own_gib_before"] == pytest.approx(0.5, abs=0.05)
    assert found["mapped_gib"] - found["mapped_gib_before"] == pytest.approx(0.25, abs=0.05)
    assert found["peak_gib"] >= found["own_gib"] > found["mapped_gib"]


def test_a_process_above_its_limit_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with pytest.raises(PartError, match="the process of hold was killed"):
        call_apart(hold, 1.5, str(path), limit_gib=1.0)
    command = ["-c", "held = bytearray(2**29); import time; time.sleep(60)"]
    code, use, _ = run_apart(command, tmp_path / "log", limit_gib=0.2)
    assert code == -signal.SIGKILL and use["seconds"] < 50 and use["own_gib"] > 0.2


def test_a_command_is_run_in_the_repository_and_watched(tmp_path: Path) -> None:
    command = ["-c", "import os, sys; print(os.path.isfile('train.py')); sys.exit(3)"]
    code, use, found = run_apart(command, tmp_path / "log", watch=lambda process: process.pid)
    assert code == 3 and (tmp_path / "log").read_text() == "True\n"
    assert found > 0 and {"seconds", "cpu_seconds", "peak_gib", "own_gib"} <= use.keys()


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert memory_of(2**22 + 1) == {}
    with memory_watched(os.getpid()) as peaks:
        held = np.ones(2**27, np.uint8)
        time.sleep(0.15)
        now = memory_of(os.getpid())["own_gib"]
    assert held[0] == 1 and peaks["own_gib"] >= now - 0.05
