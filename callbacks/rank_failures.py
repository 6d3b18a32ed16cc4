"""One process of a run fails: the others end too, and it is said which one it was.

Of the processes that Lightning starts on a machine, the main one (rank 0) watches the others and is
ended with them. What is added here: the others watch the main one, and a process that only lost its
partner waits to say whose fault it was. Processes that SLURM or torchrun started are ended by
those. One that hangs without ending is given up after the process group's timeout
(configs/ddp.yaml).
"""

import os
import signal
import sys
import threading
import time
import traceback
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
        _raise_named(error, trainer)
    finally:
        is_over.set()


def leave(error: BaseException, message: str) -> NoReturn:
    """End this process with exit code 1.

    Beside others it ends at once: to end in order, NCCL may wait for processes that hang.

    Args:
        error: Its trace is printed if the message is empty.
        message: What to say.
    """
    if not torch.distributed.is_initialized():
        if not message:
            raise error
        sys.exit(message)
    print(message or "".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


def _raise_named(error: Exception, trainer: L.Trainer) -> NoReturn:
    rank, launcher = trainer.global_rank, trainer.strategy.launcher
    others = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    is_about_another, fault = _is_about_another_process(error), ""
    if is_about_another and _was_started_by_main():
        fault = "rank 0 ended" if _wait_for(_has_lost_main) else ""
    elif is_about_another and others:
        _wait_for(lambda: any(p.poll() for p in others))
        ended = [(i, p.returncode) for i, p in enumerate(others, start=1) if p.poll()]
        fault = " and ".join(f"rank {i} {_how(code)}" for i, code in ended)
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


def _is_about_another_process(error: Exception) -> bool:
    """Whether communication failed; gloo's errors have no class of their own."""
    is_gloo = isinstance(error, RuntimeError) and "gloo/" in str(error)
    return is_gloo or isinstance(error, torch.distributed.DistError)


def _how(code: int) -> str:
    """How a process ended, by its return code."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


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
