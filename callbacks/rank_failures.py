"""One process of a run fails: the others end too, and it is said which one it was.

Of the processes that Lightning starts on a machine, the main one (rank 0) watches the others and is
ended with them. What is added here: the others watch the main one, and a process that only lost its
partner waits to say whose fault it was. Processes that SLURM or torchrun started are ended by
those. One that hangs without ending is given up after the process group's timeout
(configs/ddp.yaml).
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from musicinfuser.errors import UserError

_MAIN_PROCESS = "MUSICINFUSER_MAIN_PROCESS"
# How long a process that lost another one waits for that to end, and how long processes may
# differ in the time they need to end in order.
PATIENCE_SECONDS = 30.0
_LOOK_EVERY_SECONDS = 0.5


class RankError(UserError):
    """A process of a run of several failed."""


def note_main_process() -> None:
    """Remember which process starts the others; they inherit it, and forget any but their own."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[_MAIN_PROCESS] = str(os.getpid())
    elif _has_lost_main():
        os.environ.pop(_MAIN_PROCESS, None)


@contextmanager
def ending_together(trainer: L.Trainer) -> Iterator[None]:
    """Run a job of one or several processes, of which none outlives a failure of another.

    Raises:
        RankError: Another process failed, or this one with a `UserError`; names the rank.
    """
    if trainer.world_size == 1:
        yield
        return
    is_over = threading.Event()
    if _was_started_by_main():
        follow = threading.Thread(target=_follow_main, args=(is_over, trainer), daemon=True)
        follow.start()
    try:
        yield
    except Exception as error:
        is_over.set()
        atexit.register(_end_at_once)
        _raise_named(error, trainer)
    finally:
        is_over.set()


def _end_at_once() -> None:
    """End this process without NCCL's farewell, which may wait for processes that hang."""
    if torch.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _raise_named(error: Exception, trainer: L.Trainer) -> NoReturn:
    rank, launcher = trainer.global_rank, trainer.strategy.launcher
    others = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    # Communication failed; gloo's errors have no class of their own.
    is_about_another = isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo/" in str(error)
    )
    fault = ""
    if is_about_another and _was_started_by_main():
        fault = "rank 0 ended" if _wait_for(_has_lost_main) else ""
    elif is_about_another and others:
        _wait_for(lambda: any(p.poll() for p in others))
        fault = " and ".join(
            f"rank {i} was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"rank {i} ended with exit code {code}"
            for i, process in enumerate(others, start=1)
            if (code := process.poll())
        )
    for process in others:
        process.kill()  # it may hang; it cannot go on
    if fault:
        raise RankError(
            f"{fault}, so the run ended; what it said before it did, if anything, stands above. "
            "The same command goes on from the last checkpoint."
        ) from error
    if isinstance(error, UserError):
        raise RankError(f"rank {rank}: {error}") from error
    why = ", which lost another process or waited for it in vain" if is_about_another else ""
    error.add_note(f"This was rank {rank} of {trainer.world_size}{why}.")
    raise error


def _was_started_by_main() -> bool:
    return os.environ.get("LOCAL_RANK", "0") != "0" and _MAIN_PROCESS in os.environ


def _has_lost_main() -> bool:
    return os.environ.get(_MAIN_PROCESS) != str(os.getppid())


def _follow_main(is_over: threading.Event, trainer: L.Trainer) -> None:
    """End this process soon after the main one, whatever it waits for."""
    while not is_over.wait(_LOOK_EVERY_SECONDS):
        if _has_lost_main():
            if not is_over.wait(PATIENCE_SECONDS):
                print(
                    f"train.py: rank 0 ended, so rank {trainer.global_rank} does.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)
            return


def _wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_EVERY_SECONDS / 5)
    return True
