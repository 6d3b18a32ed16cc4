"""Score folders of generated clips and print the tables; also ``python -m dance_eval``.

    python evaluate.py report FOLDER [FOLDER ...] --output FOLDER
    python evaluate.py score FOLDER [FOLDER ...] --output metrics.json
    python evaluate.py table metrics.json --output FOLDER
    python evaluate.py sheet FOLDER [FOLDER ...] --output contact_sheet.png
    python evaluate.py side_by_side FOLDER FOLDER [...] --output FOLDER
    python evaluate.py pose FOLDER [FOLDER ...] --finder NAME
    python evaluate.py compare FOLDER FOLDER --metrics FILE --output FILE
    python evaluate.py study build FOLDER FOLDER [...] --output FOLDER --raters N
    python evaluate.py study analyse VOTES [...] --key KEY --output FOLDER

`report` is `score`, `table`, `sheet` and `side_by_side` at once, and index.html with all of it.
`pose` writes the joints of people beside their clips, for metrics that read them.
`compare` lets a judge see two systems at a time, `study` people. `score` can be stopped and
repeated: what metrics.json already holds is not computed again. Its fields are described in
`dance_eval.metrics.report`. Each command is a file of `dance_eval.commands`; `study` is
`dance_eval.study.commands`.
"""

import shlex
import sys
from collections.abc import Callable

from jsonargparse import ArgumentParser

from dance_eval.commands import compare, pictures, pose, report, score, table
from dance_eval.study.commands import add_study, run_study
from musicinfuser.errors import in_one_sentence
from musicinfuser.option_parser import OptionParser

COMMANDS: dict[str, tuple[Callable[[], ArgumentParser], Callable[..., None], str]] = {
    "report": (report.parser, report.run, "Scores, tables and pictures in one folder."),
    "score": (score.parser, score.run, "Score folders of clips."),
    "table": (table.parser, table.run, "Write a table of scores."),
    "sheet": (pictures.sheet_parser, pictures.run_sheet, "Draw clips on one picture."),
    "side_by_side": (
        pictures.side_by_side_parser, pictures.run_side_by_side, "Show systems beside each other."
    ),
    "pose": (pose.parser, pose.run, "Find the joints of people in clips."),
    "compare": (compare.parser, compare.run, "Let a judge compare two systems."),
}  # fmt: skip


def main(args: list[str] | None = None) -> None:
    """Run one command.

    Args:
        args: Command line; None takes the process's own.

    Raises:
        UserError: With one sentence for the user.
    """
    parser = OptionParser(prog="evaluate.py", description="Judge generated clips.")
    commands = parser.add_subcommands(dest="command")
    for name, (options, _, text) in COMMANDS.items():
        commands.add_subcommand(name, options(), help=text)
    add_study(commands)
    config = parser.parse_args(args)
    typed = shlex.join(["python", "evaluate.py", *(sys.argv[1:] if args is None else args)])
    more = {"command": typed} if config.command == "report" else {}
    run = run_study if config.command == "study" else COMMANDS[config.command][1]
    run(config[config.command], **more)


def from_shell() -> None:
    """Run a command, and print in one sentence what the user can mend."""
    with in_one_sentence("evaluate.py", goes_on=True):
        main()


if __name__ == "__main__":
    from_shell()
