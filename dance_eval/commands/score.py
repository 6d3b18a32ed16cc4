"""`evaluate.py score`: values of clips and systems, into a metrics.json."""

import functools
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import OpenUnitInterval, PositiveInt
from tqdm import tqdm

from dance_eval.commands.options import add_decoding_options, music_beats, read_metrics
from dance_eval.loading import EvaluationError, collect_clips, load_clip
from dance_eval.metrics.clip import ClipMetric, NamedMetric, SetMetric
from dance_eval.metrics.music_beats import beat_sources
from dance_eval.metrics.report import (
    Document,
    compared_rows,
    odd_shapes,
    read_report,
    summarise,
)
from dance_eval.metrics.scoring import Scorer, add_sets, score_clips, start_record, take_known
from dance_eval.metrics.workers import num_cpus
from musicinfuser.atomic_files import require_writable, write_text
from musicinfuser.errors import UserError
from musicinfuser.option_parser import OptionParser
from musicinfuser.tables import FORMATS

DEFAULT_METRICS = Path(__file__).parents[1] / "configs" / "metrics.yaml"
SAVE_EVERY_SECONDS = 30.0


def parser() -> ArgumentParser:
    """The options of `score`."""
    return scoring_parser("Score folders of clips.", Path("metrics.json"))


def scoring_parser(description: str, output: Path) -> ArgumentParser:
    """The options of `score`, which `report` has too."""
    parser = OptionParser(description=description)
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        help="Output of `train.py predict`, or mp4 files with an optional clips.csv.",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        default=DEFAULT_METRICS,
        help="YAML list of metrics, each with class_path and init_args.",
    )
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--seed", type=int, default=0, help="Of all random draws.")
    parser.add_argument(
        "--confidence", type=OpenUnitInterval, default=0.95, help="Of the intervals."
    )
    parser.add_argument(
        "--num_workers",
        type=PositiveInt | None,
        default=None,
        help="Processes that score clips; values do not depend on it. Default: one per CPU.",
    )
    add_decoding_options(parser)
    return parser


def run(settings: Namespace) -> None:
    """Score, and print the table.

    Raises:
        EvaluationError, ClipListError, ReportError: Also if no clip could be scored.
    """
    metrics, specs = read_metrics(settings.metrics)
    document = score_folders(settings, metrics=metrics, specs=specs)
    print_summary(document)
    if not any(record["values"] or record["features"] for record in document["clips"]):
        raise EvaluationError(
            f"None of the {len(document['clips'])} clips could be scored; the reasons are in "
            f"{settings.output}."
        )


def score_folders(
    settings: Namespace, *, metrics: Sequence[NamedMetric], specs: list[Document]
) -> Document:
    """Score all clips of all folders and write metrics.json.

    Args:
        settings: The options of the command.
        metrics: What to measure.
        specs: Class path and arguments of each metric.

    Returns:
        The content of metrics.json.

    Raises:
        EvaluationError, ClipListError, ReportError: Before any scoring, if something is amiss.
    """
    entries, unlisted = collect_clips(settings.folders)
    require_writable(settings.output.parent, option="--output")
    systems = list(dict.fromkeys(entry.system for entry in entries))
    sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    try:
        for over_set in sets:
            over_set.require(systems)
    except UserError as error:
        raise EvaluationError(str(error)) from error
    known = read_report(settings.output) if settings.output.exists() else None
    beats = music_beats(settings)
    beats.check(entries)
    load = functools.partial(
        load_clip, beats=beats, seed=settings.seed, max_height=settings.max_height
    )
    for metric in metrics:
        metric.prepare(entries, seed=settings.seed)
    decoding = [settings.seed, settings.max_height]
    records = [
        start_record(entry, beats=beats, metrics=metrics, specs=specs, decoding=decoding)
        for entry in entries
    ]
    scorer = Scorer(metrics, load, settings.output.with_suffix(".features"))
    take_known(records, metrics, known=known, features=scorer.features)
    check_metrics(scorer, records)

    def save(*, is_end: bool = False) -> Document:
        complete = is_end and not any(map(scorer.missing, records))
        summary = summarise(
            records,
            [metric for metric in metrics if isinstance(metric, ClipMetric)],
            seed=settings.seed,
            confidence=settings.confidence,
        )
        for metric in sets if complete else []:
            add_sets(
                summary,
                metric,
                entries=entries,
                records=records,
                features=scorer.features,
                seed=settings.seed,
                confidence=settings.confidence,
            )
        document = {
            "systems": summary,
            "clips": records,
            "findings": findings(records, metrics, settings),
            "seed": settings.seed,
            "confidence": settings.confidence,
            "metrics": specs,
            "complete": complete,
            "unlisted": unlisted,
        }
        write_text(settings.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
        return document

    saved_at = time.monotonic()
    num_steps, steps = score_clips(
        entries, records, scorer, num_workers=settings.num_workers or num_cpus()
    )
    try:
        for _ in tqdm(steps, total=num_steps, unit="clip", desc="score"):
            if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                save()
                saved_at = time.monotonic()
    finally:
        steps.close()
        if sets:
            save()  # what goes wrong over the whole set must not lose the clips
        document = save(is_end=True)
    return document


def check_metrics(scorer: Scorer, records: list[Document]) -> None:
    """Let every metric that has a clip to score look at what it needs.

    Raises:
        EvaluationError: If something is amiss.
    """
    due = {metric.name: metric for record in records for metric in scorer.missing(record)}
    for metric in due.values():
        try:
            metric.check()
        except UserError as error:
            raise EvaluationError(str(error)) from error


def findings(
    records: list[Document], metrics: Sequence[NamedMetric], settings: Namespace
) -> Document:
    """What metrics say about all clips together, by the metric's name."""
    options = {"seed": settings.seed, "confidence": settings.confidence}
    found = {metric.name: metric.findings(records, **options) for metric in metrics}
    return {name: document for name, document in found.items() if document is not None}


def print_summary(document: Document) -> None:
    """Print the table, then what failed and why."""
    print(FORMATS["markdown"](compared_rows(document)))
    for sentence in beat_sources(document["clips"]):
        print(sentence)
    for found in document["findings"].values():
        for sentence in found["printed"]:
            print(sentence)
    for path in document["unlisted"]:
        print(f"not scored: {path} is in no line of its manifest.")
    if shapes := odd_shapes(document):
        print(
            f"Clips differ in length or rate, which scores of motion depend on: "
            f"{'; '.join(shapes)}."
        )
    failed = [record for record in document["clips"] if record["failures"]]
    if failed:
        print(f"{len(failed)} of {len(document['clips'])} clips failed:")
    reasons = Counter(text for record in failed for text in set(record["failures"].values()))
    for text, count in reasons.most_common():
        print(f"- {text}" + (f" ({count} clips)" if count > 1 else ""))
