"""Commands and functions in processes of their own, and the time and memory they took.

Memory is told apart: a process's own, which nothing can take from it, and pages of files that it
has mapped, such as weights, which the system drops and reads again when memory is short.
"""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.report import GIB

LOOKED_AT_EVERY_S = 0.05
ROOT = Path(__file__).parents[1]
_LINES = {"RssAnon": "own_gib", "RssFile": "mapped_gib"}


class PartError(Exception):
    """A part of a benchmark ended otherwise than it should."""


def memory_of(pid: int) -> dict[str, float]:
    """``own_gib`` and ``mapped_gib`` of a process; nothing where Linux does not say it, or none."""
    try:
        lines = Path("/proc", str(pid), "status").read_text().splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines)
    return {
        name: int(found[line].split()[0]) * 1024 / GIB
        for line, name in _LINES.items() if line in found
    }  # fmt: skip


@contextmanager
def memory_watched(pid: int, limit_gib: float | None = None) -> Iterator[dict[str, float]]:
    """The most of each kind of memory that a process has had within.

    Args:
        pid: The process.
        limit_gib: It is killed when it has more memory of its own than that.

    Yields:
        What `memory_of` gives, each at its largest; looked at 20 times a second.
    """
    peaks: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        for name, value in memory_of(pid).items():
            peaks[name] = max(peaks.get(name, 0.0), value)
        if limit_gib is not None and peaks.get("own_gib", 0.0) > limit_gib:
            print(f"{peaks['own_gib']:.1f} GiB of its own: process {pid} is killed", flush=True)
            os.kill(pid, signal.SIGKILL)
            ended.set()

    def keep_looking() -> None:
        while not ended.wait(LOOKED_AT_EVERY_S):
            look()

    look()
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        if not ended.is_set():
            look()
        ended.set()
        thread.join()


def run_apart(
    command: list[str], log: Path, *, limit_gib: float | None = None,
    watch: Callable[[subprocess.Popen], Any] | None = None,
) -> tuple[int, dict[str, float], Any]:  # fmt: skip
    """Run Python with arguments to its end.

    Args:
        command: Arguments of Python, run in the repository.
        log: Where its output goes.
        limit_gib: As of `memory_watched`.
        watch: Called with the process while it runs.

    Returns:
        Its exit code, less than 0 of a signal; ``seconds`` on the clock, ``cpu_seconds``,
        ``peak_gib``, ``own_gib`` and ``mapped_gib``; and what ``watch`` returned.
    """
    with log.open("w") as file:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        )
        with memory_watched(process.pid, limit_gib) as peaks:
            found = watch(process) if watch is not None else None
            # Until then its number is its own.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    use = {
        "seconds": time.monotonic() - began, "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_gib": used.ru_maxrss * 1024 / GIB,
    }  # fmt: skip
    return process.returncode, use | peaks, found


def call_apart(
    function: Callable[..., dict[str, Any]], *arguments: Any, limit_gib: float | None = None
) -> dict[str, Any]:
    """What a function of a module found, with what `run_apart` says of its process.

    Raises:
        PartError: The process was killed.
    """
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned) as pool:
        began = time.monotonic()
        try:
            found = pool.submit(_with_use, function, arguments, limit_gib).result()
        except BrokenProcessPool as error:
            raise PartError(f"the process of {function.__name__} was killed") from error
    return {"seconds": time.monotonic() - began} | found


def _with_use(
    function: Callable[..., dict[str, Any]], arguments: tuple, limit_gib: float | None
) -> dict[str, Any]:
    with memory_watched(os.getpid(), limit_gib) as peaks:
        found = function(*arguments)
    return found | {"cpu_seconds": time.process_time(), "peak_gib": peak_gib()} | peaks


def peak_gib() -> float:
    """The most memory of both kinds that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
