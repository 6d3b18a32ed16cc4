"""Score folders of generated clips and print the tables; also ``python -m dance_eval``.

    python evaluate.py report FOLDER [FOLDER ...] --output FOLDER
    python evaluate.py score FOLDER [FOLDER ...] --output metrics.json
    python evaluate.py table metrics.json --output FOLDER
    python evaluate.py sheet FOLDER [FOLDER ...] --output contact_sheet.png
    python evaluate.py side_by_side FOLDER FOLDER [...] --output FOLDER
    python evaluate.py compare FOLDER FOLDER --metrics FILE --output FILE
    python evaluate.py study build FOLDER FOLDER [...] --output FOLDER --raters N
    python evaluate.py study analyse VOTES [...] --key KEY --output FOLDER

`report` is `score`, `table`, `sheet` and `side_by_side` at once, and index.html with all of it.
`compare` lets a judge see two systems at a time, `study` people. `score` can be stopped and
repeated: what metrics.json already holds is not computed again. Its fields are described in
`dance_eval.metrics.report`. Each command is a file of `dance_eval.commands`; `study` is
`dance_eval.study.commands`.
"""

import shlex
import sys

from jsonargparse import ArgumentParser

from dance_eval.commands import compare, pictures, report, score, table
from dance_eval.study.commands import add_study, run_study
from musicinfuser.errors import in_one_sentence
from musicinfuser.option_parser import OptionParser


def build_parser() -> ArgumentParser:
    """The command line with its commands."""
    parser = OptionParser(prog="evaluate.py", description="Judge generated clips.")
    commands = parser.add_subcommands(dest="command")
    commands.add_subcommand(
        "report", report.parser(), help="Scores, tables and pictures in one folder."
    )
    commands.add_subcommand("score", score.parser(), help="Score folders of clips.")
    commands.add_subcommand("table", table.parser(), help="Write a table of scores.")
    commands.add_subcommand("sheet", pictures.sheet_parser(), help="Draw clips on one picture.")
    commands.add_subcommand(
        "side_by_side", pictures.side_by_side_parser(), help="Show systems beside each other."
    )
    commands.add_subcommand("compare", compare.parser(), help="Let a judge compare two systems.")
    add_study(commands)
    return parser


RUNS = {
    "score": score.run,
    "table": table.run,
    "sheet": pictures.run_sheet,
    "side_by_side": pictures.run_side_by_side,
    "compare": compare.run,
    "study": run_study,
}


def main(args: list[str] | None = None) -> None:
    """Run one command.

    Args:
        args: Command line; None takes the process's own.

    Raises:
        UserError: With one sentence for the user.
    """
    config = build_parser().parse_args(args)
    settings = config[config.command]
    if config.command == "report":
        typed = sys.argv[1:] if args is None else args
        report.run(settings, command=shlex.join(["python", "evaluate.py", *typed]))
    else:
        RUNS[config.command](settings)


def from_shell() -> None:
    """Run a command, and print in one sentence what the user can mend."""
    try:
        with in_one_sentence("evaluate.py"):
            main()
    except KeyboardInterrupt:
        print("evaluate.py: stopped; repeat the command to go on.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    from_shell()
