"""`evaluate.py compare`: two systems' clips of the same cells, by a judge that sees both."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import OpenUnitInterval

from dance_eval.commands.metrics_file import read_metrics
from dance_eval.comparison import compare_systems, comparison_lines
from dance_eval.judges.judge import JudgeError
from dance_eval.loading import EvaluationError, collect_clips
from dance_eval.metrics.judged_quality import JudgedQuality
from musicinfuser.atomic_files import require_writable
from musicinfuser.option_parser import OptionParser


def parser() -> ArgumentParser:
    """The options of `compare`."""
    options = OptionParser(description="Let a judge compare two systems, in both orders.")
    options.add_argument("folders", nargs="+", type=Path, help="As for `score`, of two systems.")
    options.add_argument(
        "--metrics", type=Path, required=True, help="As for `score`; with a judge."
    )
    options.add_argument("--output", type=Path, default=Path("comparison.json"))
    options.add_argument("--seed", type=int, default=0, help="Of the intervals.")
    options.add_argument("--confidence", type=OpenUnitInterval, default=0.95)
    return options


def run(settings: Namespace) -> None:
    """Two systems' clips of the same cells, by the first judge among the metrics.

    Raises:
        EvaluationError, ClipListError: Also if there is no judge, or nothing could be compared.
    """
    metrics, _ = read_metrics(settings.metrics)
    judged = next((metric for metric in metrics if isinstance(metric, JudgedQuality)), None)
    if judged is None:
        raise EvaluationError(f"{settings.metrics}: holds no JudgedQuality to take a judge from.")
    entries, _ = collect_clips(settings.folders)
    require_writable(settings.output.parent, option="--output")
    options = {"seed": settings.seed, "confidence": settings.confidence}
    try:
        document = compare_systems(entries, judged.judge, settings.output, **options)
    except JudgeError as error:
        raise EvaluationError(str(error)) from error
    for line in comparison_lines(document):
        print(line)
