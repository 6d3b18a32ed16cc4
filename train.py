"""Entry point of all jobs: ``python train.py fit|validate|test|predict|check|sweep|status ...``."""

import argparse
import sys
from contextlib import nullcontext
from typing import Any, NoReturn

from musicinfuser.errors import in_one_sentence
from musicinfuser.loading import loading
from musicinfuser.option_parser import Explainer
from sweeps.commands import sweep_command

COMMANDS = {
    "fit": "Train; the same command resumes.",
    "validate": "Compute the losses of a checkpoint on held-out clips.",
    "test": "Run the test_step of a module of your own.",
    "predict": "Encode videos, caption videos, or generate clips.",
    "check": "With the options of fit or predict: say what would go wrong, and run nothing.",
    "sweep": "Run the many trainings of a sweep file, and write their table.",
    "status": "Show how far the runs of a sweep are.",
}


class CommandParser(argparse.ArgumentParser):
    """Reads the command; its options are read by a parser of its own."""

    def error(self, message: str) -> NoReturn:
        """End with code 2 and one sentence that names all commands."""
        self.exit(2, f"{self.prog}: {Explainer(self).explained(message)}\n")


def build_parser() -> CommandParser:
    """The parser of the first word of a command line."""
    parser = CommandParser(
        prog="train.py",
        description="Train, encode, generate and check; run sweeps of trainings.",
        epilog="`train.py COMMAND --help` lists the options of a command.",
    )
    commands = parser.add_subparsers(dest="command", title="commands")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def main(args: list[str] | None = None) -> Any:
    """Run one command.

    Args:
        args: Command line; None takes the process's own.

    Returns:
        The `MusicInfuserCLI` that ran, of ``sweep`` and ``status`` the exit code.

    Raises:
        UserError: In one sentence, what the user can mend.
    """
    parser = build_parser()
    given, options = parser.parse_known_args(args)
    if given.command is None:
        parser.error(f'expected "command" to be one of {{{",".join(COMMANDS)}}}, but it was not')
    if given.command in ("sweep", "status"):
        return sweep_command([given.command, *options])
    with nullcontext() if "lightning_modules.cli" in sys.modules else loading():
        from lightning_modules import cli  # loads torch, which takes seconds

    return cli.run(given.command, options)


def from_shell() -> NoReturn:
    """Run a command, and print in one sentence what the user can mend."""
    with in_one_sentence("train.py"):
        done = main()
    sys.exit(getattr(done, "exit_code", done))


if __name__ == "__main__":
    from_shell()
