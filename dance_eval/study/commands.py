"""`evaluate.py study build` and `evaluate.py study analyse`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ActionSubCommands, ArgumentParser, Namespace

from dance_eval.loading import collect_clips
from dance_eval.study.analysis import AnalysisOptions, analyse_votes
from dance_eval.study.build import PAGE_NAME, StudyOptions, build_study, minutes_needed
from dance_eval.study.key import StudyError, read_key
from dance_eval.study.preferences import read_metric_values
from dance_eval.study.report import draw_plots, headline, readable_tables, write_report
from musicinfuser.atomic_files import require_writable
from musicinfuser.option_parser import OptionParser
from musicinfuser.tables import markdown_table

MAX_PRINTED = 20


def add_study(commands: ActionSubCommands) -> None:
    """Add the command `study` and its own two commands."""
    parser = OptionParser(description="Compare systems by what people say.")
    commands.add_subcommand("study", parser, help="Compare systems by what people say.")
    steps = parser.add_subcommands(dest="step")
    steps.add_subcommand("build", build_parser(), help="Make the page that raters get.")
    steps.add_subcommand("analyse", analyse_parser(), help="Say what the votes say.")


def build_parser() -> ArgumentParser:
    """The options of `study build`."""
    parser = OptionParser(description="Make an offline page from folders of clips, and its key.")
    parser.add_argument(
        "folders", nargs="+", type=Path, help="As for `score`; of two or more systems."
    )
    parser.add_argument(
        "--output", type=Path, default=Path("study"), help="The page: all of it may be given away."
    )
    parser.add_argument(
        "--key",
        type=Path | None,
        default=None,
        help="The sealed key; default: <output>.key.json beside the page.",
    )
    parser.add_class_arguments(StudyOptions)
    return parser


def analyse_parser() -> ArgumentParser:
    """The options of `study analyse`."""
    parser = OptionParser(description="Check and analyse files of votes.")
    parser.add_argument(
        "votes", nargs="+", type=Path, help="Files that raters downloaded, or folders with them."
    )
    parser.add_argument("--key", type=Path, required=True, help="The sealed key.")
    parser.add_argument("--output", type=Path, default=Path("study_analysis"))
    parser.add_argument(
        "--metrics", nargs="*", type=Path, default=[], help="metrics.json of the same clips."
    )
    parser.add_argument(
        "--despite_problems",
        type=bool,
        default=False,
        help="Go on where rows are edited, unknown or contradict each other; they do not count.",
    )
    parser.add_class_arguments(AnalysisOptions)
    return parser


def run_study(settings: Namespace) -> None:
    """Run one of the commands; `UserError` with one sentence for the user."""
    if settings.step == "build":
        build(settings.build)
    else:
        analyse(settings.analyse)


def build(settings: Namespace) -> None:
    """Write the page and the key, and say what was left out or changed."""
    entries, unlisted = collect_clips(settings.folders)
    output: Path = settings.output
    key_file = settings.key or output.with_name(f"{output.resolve().name}.key.json")
    require_writable(output, option="--output")
    require_writable(key_file.parent, option="--key")
    options = _options(StudyOptions, settings)
    key = build_study(entries, folder=output, key_file=key_file, options=options)
    notes = [f"{path}: left out, since no line of its manifest names it." for path in unlisted]
    notes += key.notes
    _print_some(notes, rest=f"all under `notes` in {key_file}")
    kinds = [item.kind for item in key.items.values()]
    minutes = max(minutes_needed(key, rater) for rater in key.plan)
    shown = "x".join(str(int(key.form[side])) for side in ("height", "width"))
    print(
        f"Study {key.study}: {kinds.count('pair')} pairs of {len(key.systems)} systems and "
        f"{kinds.count('catch')} catches for {len(key.plan)} raters, {shown} px at "
        f"{key.form['fps']:g} frames per second, up to {minutes} minutes each."
    )
    print(f"Give raters the folder {output} and a number: {output / PAGE_NAME}?rater=1")
    print(f"Keep {key_file} to yourself; the analysis needs it.")


def analyse(settings: Namespace) -> None:
    """Write the analysis, print its tables, and name every problem.

    `StudyError` also if rows cannot be counted and `despite_problems` is not given; the report is
    written all the same.
    """
    key = read_key(settings.key)
    metrics = read_metric_values(settings.metrics)
    options = _options(AnalysisOptions, settings)
    document, votes = analyse_votes(settings.votes, key, metrics=metrics, options=options)
    write_report(settings.output, document, draw_plots(document, votes, metrics, key))
    tables = readable_tables(document)
    for name in ("win_rates", "agreement", "strengths", "correlations"):
        if name in tables:
            print(markdown_table(tables[name]))
    print(headline(document))
    problems = [f"{p['where']}: {p['kind']}: {p['text']}" for p in document["problems"]]
    _print_some(problems, rest=f"all in {settings.output / 'problems.md'}")
    print(f"Everything, with plots: {settings.output / PAGE_NAME}")
    kinds = Counter(problem["kind"] for problem in document["problems"] if problem["is_grave"])
    if kinds and not settings.despite_problems:
        named = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        raise StudyError(
            f"{kinds.total()} rows or files do not count: {named}; mend them, or accept that with "
            "--despite_problems true."
        )


def _options(kind: Any, settings: Namespace) -> Any:
    return kind(**{field.name: settings[field.name] for field in fields(kind)})


def _print_some(lines: Sequence[str], *, rest: str) -> None:
    for line in lines[:MAX_PRINTED]:
        print(f"- {line}")
    if len(lines) > MAX_PRINTED:
        print(f"- and {len(lines) - MAX_PRINTED} more, {rest}")
