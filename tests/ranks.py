"""Processes that run train.py, forked from one that has imported all of it and done nothing.

Importing takes longer than most of what they are asked to do. A fork of the test's own process
would not do: once autograd has threads there, it refuses to work in a fork.
"""

import multiprocessing
import os
import socket
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch

import train
from dance_eval.metrics.workers import PRELOADED

# One process forks for all tests of a process, those of scoring included: it imports all at once.
PRELOADED += [
    "tests.ranks", "datamodules", "lightning_modules.cli",
    "musicinfuser.networks.music_adapter", "musicinfuser.networks.backbones.mochi_block",
]  # fmt: skip


@dataclass
class Ended:
    """How a process ended, and what it said."""

    exit_code: int | None
    """None if it had to be killed; of a signal, less than 0."""
    output: str
    errors: str
    """Where several processes ran, ``output`` holds them too."""


def run_alone(folder: Path, arguments: list[str], *, cwd: Path, timeout: float = 300.0) -> Ended:
    """Run train.py's door in one process.

    Args:
        folder: What it says goes into ``output`` and ``errors``.
        arguments: Of the command line.
        cwd: Where it is started.
        timeout: Seconds until it is killed.
    """
    output, errors = folder / "output", folder / "errors"
    process = _forks().Process(target=_run, args=(arguments, {}, output, errors, cwd))
    process.start()
    process.join(timeout)
    return _ended(process, output, errors)


def run_ranks(
    folder: Path, arguments: list[str], *, environment: dict[str, str] | None = None,
    num: int = 2, timeout: float = 300.0, wait_for: int | None = None,
) -> list[Ended]:  # fmt: skip
    """Run train.py's door in ``num`` processes, which find each other as torchrun's or SLURM's do.

    Args:
        folder: What they say goes into ``output.<rank>``.
        arguments: Of the command line.
        environment: Variables, with ``{rank}`` and ``{num}`` in the values; torchrun's if absent.
        num: Processes.
        timeout: Seconds until they are killed.
        wait_for: Kill the others when this one has ended.
    """
    if environment is None:
        environment = {
            "RANK": "{rank}", "LOCAL_RANK": "{rank}", "WORLD_SIZE": "{num}",
            "LOCAL_WORLD_SIZE": "{num}", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes, outputs = [], []
    for rank in range(num):
        own = {name: value.format(rank=rank, num=num) for name, value in environment.items()}
        outputs.append(folder / f"output.{rank}")
        given = (arguments, own | address, outputs[-1], outputs[-1], Path.cwd())
        processes.append(_forks().Process(target=_run, args=given))
        processes[-1].start()
    awaited = processes if wait_for is None else [processes[wait_for]]
    for process in awaited:
        process.join(timeout)
    return [_ended(p, said, said) for p, said in zip(processes, outputs, strict=True)]


def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _ended(process: ForkServerProcess, output: Path, errors: Path) -> Ended:
    code = process.exitcode
    process.kill()
    process.join()
    return Ended(code, *(path.read_text(encoding="utf-8") for path in (output, errors)))


def _run(
    arguments: list[str], environment: dict[str, str], output: Path, errors: Path, cwd: Path
) -> None:
    os.setsid()  # a signal to its group stays with it
    os.chdir(cwd)
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace")
    os.environ.update(environment)
    os.environ.pop("MUSICINFUSER_MAIN_PROCESS", None)
    sys.argv = ["train.py", *arguments]
    torch.set_num_threads(1)
    train.from_shell()
