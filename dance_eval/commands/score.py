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
from dance_eval.metrics.following import following_rows, is_controlled
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
from musicinfuser.tables import markdown_table

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
    """Score all clips of all folders, write metrics.json and print the table.

    Raises:
        EvaluationError, ClipListError, ReportError: Before any scoring, if something is amiss, and
            if no clip could be scored.
    """
    metrics, specs = read_metrics(settings.metrics)
    document = score_folders(settings, metrics, specs)
    print_summary(document)
    # A description alone, such as a motion curve, is no score where all else failed.
    is_scored = any(
        record["values"] or (record["features"] and not record["failures"])
        for record in document["clips"]
    )
    summaries = (summary for own in document["systems"].values() for summary in own.values())
    if not is_scored and all(summary["mean"] is None for summary in summaries):
        raise EvaluationError(
            f"None of the {len(document['clips'])} clips could be scored; the reasons are in "
            f"{settings.output}."
        )


def score_folders(
    settings: Namespace, metrics: Sequence[NamedMetric], specs: list[Document]
) -> Document:
    """Write metrics.json of metrics and the settings that they were built from; its content."""
    entries, unlisted = collect_clips(settings.folders)
    require_writable(settings.output.parent, option="--output")
    sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    of_clips = [metric for metric in metrics if isinstance(metric, ClipMetric)]
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
    due = {metric.name: metric for record in records for metric in scorer.missing(record)}
    try:
        for over_set in sets:
            over_set.require(list(dict.fromkeys(entry.system for entry in entries)))
        for metric in due.values():
            metric.check()
    except UserError as error:
        raise EvaluationError(str(error)) from error
    intervals: Document = {"seed": settings.seed, "confidence": settings.confidence}

    def save(*, is_end: bool = False) -> Document:
        complete = is_end and not any(map(scorer.missing, records))
        summary = summarise(records, of_clips, **intervals)
        for metric in sets if complete else []:
            clips: Document = {"entries": entries, "records": records, "features": scorer.features}
            add_sets(summary, metric, **clips, **intervals)
        findings = {metric.name: metric.findings(records, **intervals) for metric in metrics}
        document = {
            "systems": summary,
            "clips": records,
            "findings": {name: found for name, found in findings.items() if found is not None},
            **intervals,
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


def print_summary(document: Document) -> None:
    """Print the table, then what failed and why."""
    if is_controlled(following := following_rows(document)):
        print(markdown_table(following))
    print(markdown_table(compared_rows(document)))
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
