"""Several processes of one training, forked from one that has imported all of it and done nothing.

A fork of the test's own process would not do: once autograd has threads there, it refuses to work
in a fork. They find each other as those that torchrun or SLURM start.
"""

import multiprocessing
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import train


@dataclass
class Ended:
    """How a process ended, and what it said."""

    exit_code: int | None
    """None if it had to be killed."""
    output: str


def run_ranks(
    folder: Path, arguments: list[str], *, environment: dict[str, str] | None = None,
    num: int = 2, timeout: float = 300.0, wait_for: int | None = None,
) -> list[Ended]:  # fmt: skip
    """Run train.py's door in ``num`` processes.

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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ranks", "callbacks", "datamodules", "lightning_modules"])
    processes, outputs = [], []
    for rank in range(num):
        own = {name: value.format(rank=rank, num=num) for name, value in environment.items()}
        outputs.append(folder / f"output.{rank}")
        processes.append(
            context.Process(target=_rank, args=(arguments, own | address, outputs[-1]))
        )
        processes[-1].start()
    awaited = processes if wait_for is None else [processes[wait_for]]
    for process in awaited:
        process.join(timeout)
    ended = []
    for process, output in zip(processes, outputs, strict=True):
        code = process.exitcode
        process.kill()
        process.join()
        ended.append(Ended(code, output.read_text()))
    return ended


def _rank(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    os.setsid()  # a signal to its group stays with it
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    os.environ.update(environment)
    os.environ.pop("MUSICINFUSER_MAIN_PROCESS", None)
    sys.argv = ["train.py", *arguments]
    torch.set_num_threads(1)
    train.from_shell()
