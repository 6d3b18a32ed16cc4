"""`evaluate.py study build` and `evaluate.py study analyse`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionSubCommands, ArgumentParser, Namespace
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)

from dance_eval.loading import collect_clips
from dance_eval.study.analysis import RaterRules, analyse_votes, grave_problems
from dance_eval.study.build import StudyOptions, build_study
from dance_eval.study.errors import StudyError
from dance_eval.study.key import read_key
from dance_eval.study.metric_values import read_metric_values
from dance_eval.study.page import PAGE_NAME, minutes_needed
from dance_eval.study.plots import draw_plots
from dance_eval.study.preferences import Analysing
from dance_eval.study.report import headline, readable_tables, write_report
from musicinfuser.atomic_files import require_writable
from musicinfuser.option_parser import OptionParser
from musicinfuser.tables import markdown_table

MAX_PRINTED = 20


def add_study(verbs: ActionSubCommands) -> None:
    """Add the verb `study` and its own two verbs."""
    parser = OptionParser(description="Compare systems by what people say.")
    verbs.add_subcommand("study", parser, help="Compare systems by what people say.")
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
    parser.add_argument(
        "--raters", type=PositiveInt, required=True, help="Their ids are 1 to this."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of all draws.")
    parser.add_argument(
        "--pairs_per_rater", type=PositiveInt | None, default=None, help="Default: all pairs."
    )
    parser.add_argument(
        "--repeats", type=NonNegativeInt, default=2, help="Per rater, sides swapped."
    )
    parser.add_argument(
        "--catches", type=NonNegativeInt, default=3, help="Spoilt copies against intact clips."
    )
    parser.add_argument(
        "--ties", type=bool, default=True, help="Whether no difference is an answer."
    )
    parser.add_argument(
        "--height", type=PositiveInt | None, default=None, help="Default: smallest."
    )
    parser.add_argument("--width", type=PositiveInt | None, default=None, help="Default: smallest.")
    parser.add_argument("--fps", type=PositiveFloat | None, default=None, help="Default: highest.")
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
    parser.add_argument(
        "--leave_out",
        type=Literal["none", "catches", "repeats", "either"],
        default="none",
        help="Leave out raters who fail these.",
    )
    parser.add_argument("--min_caught", type=ClosedUnitInterval, default=0.75, help="Of catches.")
    parser.add_argument("--min_same", type=ClosedUnitInterval, default=0.5, help="Of repeats.")
    parser.add_argument("--seed", type=int, default=0, help="Of the resamples.")
    parser.add_argument("--confidence", type=OpenUnitInterval, default=0.95)
    parser.add_argument("--resamples", type=PositiveInt, default=2000)
    return parser


def run_study(settings: Namespace) -> None:
    """Run one of the verbs.

    Raises:
        StudyError: With one sentence for the user.
        ClipListError, EvaluationError, ReportError: Likewise, from lists of clips and metrics.
    """
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
    key = build_study(
        entries,
        folder=output,
        key_file=key_file,
        options=StudyOptions(
            num_raters=settings.raters,
            seed=settings.seed,
            pairs_per_rater=settings.pairs_per_rater,
            num_repeats=settings.repeats,
            num_catches=settings.catches,
            is_forced=not settings.ties,
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
        ),
    )
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

    Raises:
        StudyError: Also if rows cannot be counted and `despite_problems` is not given; the report
            is written all the same.
    """
    key = read_key(settings.key)
    metrics = read_metric_values(settings.metrics)
    document, votes = analyse_votes(
        settings.votes,
        key,
        metrics=metrics,
        rules=RaterRules(settings.leave_out, settings.min_caught, settings.min_same),
        how=Analysing(settings.seed, settings.confidence, settings.resamples),
    )
    write_report(settings.output, document, draw_plots(document, votes, metrics, key))
    tables = readable_tables(document)
    for name in ("win_rates", "agreement", "strengths", "correlations"):
        if name in tables:
            print(markdown_table(tables[name]))
    print(headline(document))
    problems = [f"{p['where']}: {p['kind']}: {p['text']}" for p in document["problems"]]
    _print_some(problems, rest=f"all in {settings.output / 'problems.md'}")
    print(f"Everything, with plots: {settings.output / PAGE_NAME}")
    grave = grave_problems(document)
    if grave and not settings.despite_problems:
        kinds = Counter(problem.kind for problem in grave)
        named = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        raise StudyError(
            f"{len(grave)} rows or files do not count: {named}; mend them, or accept that with "
            "--despite_problems true."
        )


def _print_some(lines: Sequence[str], *, rest: str) -> None:
    for line in lines[:MAX_PRINTED]:
        print(f"- {line}")
    if len(lines) > MAX_PRINTED:
        print(f"- and {len(lines) - MAX_PRINTED} more, {rest}")
