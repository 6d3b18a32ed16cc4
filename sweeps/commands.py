"""`train.py sweep FILE` and `train.py status FOLDER`."""

import shlex
import sys
from pathlib import Path

from jsonargparse import ArgumentParser

from musicinfuser.option_parser import OptionParser
from sweeps.driver import run_sweep
from sweeps.settings import read_sweep
from sweeps.status import show_status


def sweep_command(arguments: list[str]) -> int:
    """Run one of the two commands.

    Args:
        arguments: The command line, the command first.

    Returns:
        The exit code.

    Raises:
        SweepError: In one sentence, what the user can mend.
    """
    command, *rest = arguments
    if command == "sweep":
        return run_sweep(
            read_sweep(_sweep_parser().parse_args(rest).file),
            command=shlex.join(["python", "train.py", *arguments]),
        )
    settings = _status_parser().parse_args(rest)
    try:
        show_status(settings.folder, once=settings.once)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def _sweep_parser() -> ArgumentParser:
    parser = OptionParser(
        prog="train.py sweep",
        description="Do what is left of a sweep and write its table; can be repeated.",
    )
    parser.add_argument("file", type=Path, help="Such as configs/sweeps/table1.yaml.")
    return parser


def _status_parser() -> ArgumentParser:
    parser = OptionParser(prog="train.py status", description="How far a sweep is.")
    parser.add_argument("folder", type=Path, help="The `folder` of the sweep.")
    parser.add_argument("--once", action="store_true", help="Print the table once and end.")
    return parser
