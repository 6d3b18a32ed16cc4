"""Work spread over processes in which any may die without taking the others along."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")
PRELOADED = ["__main__", "torchmetrics", "av", "scipy.ndimage", "dance_eval.loading"]


@dataclass(frozen=True)
class WorkerLost:
    """A process ended in the middle of a task."""

    exit_code: int | None
    """Negative for the signal that killed it."""

    def __str__(self) -> str:
        """What happened and what may help."""
        if self.exit_code == -signal.SIGKILL:
            return (
                "The process that worked on it was killed, as happens when memory runs out; repeat "
                "the command with fewer workers."
            )
        return f"The process that worked on it ended with code {self.exit_code}."


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results_of(
    tasks: Sequence[Task],
    work: Callable[[Task], Result],
    *,
    num_workers: int,
    preloaded: Sequence[str] = PRELOADED,
) -> Iterator[tuple[int, Result | WorkerLost]]:
    """Results in the order in which they are ready.

    Processes are forked from a clean one, so threads and devices of this one do no harm; each
    computes with one thread. They end with this process, however it ends; interrupts from the
    keyboard are left to this process. A process that dies costs its own task and is replaced; an
    exception ends everything. Tasks, work and results are picklable.

    Args:
        tasks: What to work on.
        work: Gives the result of a task.
        num_workers: How many processes.
        preloaded: Modules that work needs, imported once, in the process that others are forked
            from.

    Yields:
        The number of a task and its result, or how its process was lost.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    # Plain bytes: tensors would otherwise be passed through shared memory, which may be small.
    payload = pickle.dumps(work)
    waiting = iter(range(len(tasks)))
    busy: dict[Connection, tuple[BaseProcess, int]] = {}
    processes: list[BaseProcess] = []

    def start(number: int) -> None:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, payload), daemon=True)
        process.start()
        there.close()
        processes.append(process)
        busy[here] = (process, number)
        _send(here, tasks[number])

    try:
        for number in islice(waiting, num_workers):
            start(number)
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                process, number = busy.pop(connection)
                following = next(waiting, None)
                try:
                    is_error, result = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    process.join()
                    connection.close()
                    if following is not None:
                        start(following)
                    yield number, WorkerLost(process.exitcode)
                    continue
                if is_error:
                    raise result
                if following is None:
                    connection.close()
                else:
                    busy[connection] = (process, following)
                    _send(connection, tasks[following])
                yield number, result
    finally:
        for connection in busy:
            connection.close()
        for process in processes:
            process.terminate()
            process.join()


def _send(connection: Connection, task: Any) -> None:
    with suppress(OSError):  # a process that has died is found when its result is awaited
        connection.send_bytes(pickle.dumps(task))


def _serve(connection: Connection, payload: bytes) -> None:
    """Results for tasks until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # Read when OpenCV is loaded.
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
    try:
        work = pickle.loads(payload)
        while True:
            answer = False, work(pickle.loads(connection.recv_bytes()))
            connection.send_bytes(pickle.dumps(answer))
    except (EOFError, OSError):
        pass
    except Exception as error:
        connection.send_bytes(pickle.dumps((True, error)))
