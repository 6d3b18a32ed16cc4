"""Score folders of generated clips and print the tables.

    python evaluate.py report FOLDER [FOLDER ...] --output FOLDER
    python evaluate.py score FOLDER [FOLDER ...] --output metrics.json
    python evaluate.py table metrics.json --output FOLDER
    python evaluate.py sheet FOLDER [FOLDER ...] --output contact_sheet.png
    python evaluate.py side_by_side FOLDER FOLDER [...] --output FOLDER
    python evaluate.py compare FOLDER FOLDER --metrics configs/judge_server.yaml --output FILE
    python evaluate.py study build FOLDER FOLDER [...] --output FOLDER --raters N
    python evaluate.py study analyse VOTES [...] --key KEY --output FOLDER

`report` is `score`, `table`, `sheet` and `side_by_side` at once, and index.html with all of it.
`compare` lets a judge see two systems at a time, `study` people. `score` can be stopped and
repeated: what metrics.json already holds is not computed again. Its fields are described in
`musicinfuser.metrics.report`.
"""

import functools
import json
import shlex
import sys
import time
from argparse import ArgumentError
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeFloat, OpenUnitInterval, PositiveFloat, PositiveInt
from tqdm import tqdm

from musicinfuser.comparison import compare_systems, comparison_lines
from musicinfuser.evaluation import (
    EvaluationError,
    collect_clips,
    draw_sheet,
    load_clip,
    same_music,
    write_side_by_side,
)
from musicinfuser.judges.judge import JudgeError
from musicinfuser.media.audio import read_audio
from musicinfuser.metrics.clip import ClipMetric, NamedMetric
from musicinfuser.metrics.clip_folder import ClipListError
from musicinfuser.metrics.judged_quality import JudgedQuality
from musicinfuser.metrics.music_beats import BEAT_RATE_HZ, MusicBeats
from musicinfuser.metrics.records import add_sets, start_record, take_known
from musicinfuser.metrics.report import (
    Document,
    ReportError,
    compared_rows,
    odd_shapes,
    read_report,
    summarise,
)
from musicinfuser.metrics.scoring import Scorer, score_clips
from musicinfuser.metrics.set_metric import SetMetric
from musicinfuser.metrics.workers import num_cpus
from musicinfuser.our_errors import first_of_ours
from musicinfuser.report.page import write_page
from musicinfuser.report.score_tables import Form, Layout, table_text, write_tables
from musicinfuser.study.commands import add_study, run_study
from musicinfuser.study.errors import StudyError
from musicinfuser.tables import FORMATS, SUFFIXES
from musicinfuser.whole_files import write_text

MAX_CLIPS, MAX_HEIGHT, EMBED_MB = 12, 480, 1.0  # unless told otherwise
DEFAULT_METRICS = Path(__file__).parent / "configs" / "metrics.yaml"
SAVE_EVERY_SECONDS = 30.0


def music_beats(settings: Namespace) -> MusicBeats:
    """Where beats come from, by the options of `add_decoding_options`."""
    return MusicBeats(
        functools.partial(read_audio, rate_hz=BEAT_RATE_HZ),
        mode=settings.music_beats,
        folder=settings.beats_folder,
        start_bpm=settings.start_bpm,
        tightness=settings.tightness,
    )


def score(
    settings: Namespace, *, metrics: Sequence[NamedMetric], specs: list[Document]
) -> Document:
    """Score all clips of all folders and write metrics.json.

    Args:
        settings: The options of the verb.
        metrics: What to measure.
        specs: Class path and arguments of each metric.

    Returns:
        The content of metrics.json.

    Raises:
        EvaluationError, ClipListError, ReportError: Before any scoring, if something is amiss.
    """
    entries, unlisted = collect_clips(settings.folders)
    systems = list(dict.fromkeys(entry.system for entry in entries))
    sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    try:
        for over_set in sets:
            over_set.require(systems)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    known = read_report(settings.output) if settings.output.exists() else None
    beats = music_beats(settings)
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

    def save() -> Document:
        complete = not any(map(scorer.missing, records))
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
        document = save()
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
        except ValueError as error:
            raise EvaluationError(str(error)) from error


def findings(
    records: list[Document], metrics: Sequence[NamedMetric], settings: Namespace
) -> Document:
    """What metrics say about all clips together, by the metric's name."""
    options = {"seed": settings.seed, "confidence": settings.confidence}
    found = {metric.name: metric.findings(records, **options) for metric in metrics}
    return {name: document for name, document in found.items() if document is not None}


def read_metrics(path: Path) -> tuple[list[NamedMetric], list[Document]]:
    """Build the metrics that a YAML file lists.

    Returns:
        The metrics, and the class path and arguments of each with all defaults filled in, with
        hashes of the weights it reads under ``files``.

    Raises:
        EvaluationError: If the file is missing or empty, names something that does not exist, sets
            something out of its range or gives two metrics one name.
    """
    # A parser of its own: a list given over a default list would inherit arguments from the
    # default's entries by their position.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--metrics", type=list[NamedMetric], sub_configs=True)
    try:
        config = parser.parse_args([f"--metrics={path}"])
    except ArgumentError as error:
        raise EvaluationError(f"{path}: {' '.join(str(error).split())}") from error
    specs = [json.loads(json.dumps(spec.as_dict(), default=str)) for spec in config.metrics or ()]
    try:
        metrics = parser.instantiate(config).metrics if specs else []
    except ValueError as error:
        # jsonargparse wraps what a nested class says in everything else that it tried.
        cause = first_of_ours(error) or error
        raise EvaluationError(f"{path}: {' '.join(str(cause).split())}") from error
    for metric, spec in zip(metrics, specs, strict=True):
        # Weights may change under the same name; values are then due again.
        if files := metric.fingerprints():
            spec["files"] = files
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"{path}: names the metrics {names}; give each a `name` of its own.")
    return metrics, specs


def print_summary(document: Document) -> None:
    """Print the table, then what failed and why."""
    print(FORMATS["markdown"](compared_rows(document)))
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


def print_table(settings: Namespace) -> None:
    """Print a table of scores and, if asked, write it to a file, or all of them to a folder.

    Raises:
        EvaluationError: If the output's name ends in nothing that is known.
        ReportError: If the file holds no scores.
    """
    document = read_report(settings.metrics_file)
    form, output = settings.format, settings.output
    suffix = output.suffix if output is not None else ""
    if form is None:
        forms = {known: name for name, known in SUFFIXES.items()}
        if suffix and suffix not in forms:
            raise EvaluationError(
                f"{output}: ends in {suffix}; name it {', '.join(forms)}, give --format, or name "
                f"a folder."
            )
        form = forms.get(suffix, "markdown")
    text = table_text(document, form=form, layout=settings.layout, intervals=settings.intervals)
    print(text, end="")
    if output is not None and suffix:
        write_text(output, text)
    elif output is not None:
        write_tables(document, output, intervals=settings.intervals, all_papers=True)


def score_folders(settings: Namespace) -> None:
    """Score, and print the table.

    Raises:
        EvaluationError, ClipListError, ReportError: Also if no clip could be scored.
    """
    metrics, specs = read_metrics(settings.metrics)
    document = score(settings, metrics=metrics, specs=specs)
    print_summary(document)
    if not any(record["values"] or record["features"] for record in document["clips"]):
        raise EvaluationError(
            f"None of the {len(document['clips'])} clips could be scored; the reasons are in "
            f"{settings.output}."
        )


def report(settings: Namespace, *, command: str) -> None:
    """Scores, tables, a picture, of several systems videos beside each other, and the page.

    Args:
        settings: The options of the verb.
        command: What was typed, for the page.

    Raises:
        EvaluationError, ClipListError, ReportError: Also if no clip could be scored or drawn.
    """
    folder, beats = settings.output, music_beats(settings)
    scoring = settings.clone()
    scoring.output = folder / "metrics.json"
    score_folders(scoring)
    document = read_report(scoring.output)
    write_tables(document, folder, intervals=True, all_papers=False)
    entries, _ = collect_clips(settings.folders)
    limits = {"beats": beats, "max_height": settings.max_height}
    draw_sheet(
        entries, folder / "contact_sheet.png", pair=True, max_clips=settings.max_clips, **limits
    )
    if any(len(group) > 1 for group in same_music(entries)):
        write_side_by_side(
            entries, folder / "side_by_side", max_videos=settings.max_clips, **limits
        )
    page = folder / "index.html"
    write_page(
        document,
        entries,
        page,
        title=settings.title,
        max_cells=settings.max_clips,
        max_embedded_bytes=round(settings.embed_mb * 1e6),
        command=command,
        settings=settings.as_dict(),
        **limits,
    )
    print(f"page: {page}")


def compare(settings: Namespace) -> None:
    """Two systems' clips of the same cells, by the first judge among the metrics.

    Raises:
        EvaluationError, ClipListError: Also if there is no judge, or nothing could be compared.
    """
    metrics, _ = read_metrics(settings.metrics)
    judged = next((metric for metric in metrics if isinstance(metric, JudgedQuality)), None)
    if judged is None:
        raise EvaluationError(f"{settings.metrics}: holds no JudgedQuality to take a judge from.")
    entries, _ = collect_clips(settings.folders)
    options = {"seed": settings.seed, "confidence": settings.confidence}
    try:
        document = compare_systems(entries, judged.judge, settings.output, **options)
    except JudgeError as error:
        raise EvaluationError(str(error)) from error
    for line in comparison_lines(document):
        print(line)


def comparing_parser() -> ArgumentParser:
    """The options of `compare`."""
    parser = ArgumentParser(description="Let a judge compare two systems, in both orders.")
    parser.add_argument("folders", nargs="+", type=Path, help="As for `score`, of two systems.")
    parser.add_argument("--metrics", type=Path, required=True, help="As for `score`; with a judge.")
    parser.add_argument("--output", type=Path, default=Path("comparison.json"))
    parser.add_argument("--seed", type=int, default=0, help="Of the intervals.")
    parser.add_argument("--confidence", type=OpenUnitInterval, default=0.95)
    return parser


def scoring_parser(*, description: str, output: Path) -> ArgumentParser:
    """The options of `score`, which `report` has too."""
    parser = ArgumentParser(description=description)
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


def picture_parser(*, description: str, output: Path) -> ArgumentParser:
    """The options of `sheet` and `side_by_side`."""
    parser = ArgumentParser(description=description)
    parser.add_argument("folders", nargs="+", type=Path, help="As for `score`.")
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--max_clips", type=PositiveInt, default=MAX_CLIPS)
    add_decoding_options(parser)
    return parser


def add_decoding_options(parser: ArgumentParser) -> None:
    """Where music beats come from, and how large frames are."""
    parser.add_argument(
        "--max_height",
        type=PositiveInt,
        default=MAX_HEIGHT,
        help="Taller frames are scaled down to it, in px.",
    )
    parser.add_argument(
        "--music_beats",
        type=Literal["tracked", "truth"],
        default="tracked",
        help="Track beats with librosa, or read <track stem>.json.",
    )
    parser.add_argument(
        "--beats_folder", type=Path | None, default=None, help="Where <track stem>.json lies."
    )
    parser.add_argument("--start_bpm", type=PositiveFloat, default=120.0, help="For tracked beats.")
    parser.add_argument("--tightness", type=PositiveFloat, default=100.0, help="For tracked beats.")


def build_parser() -> ArgumentParser:
    """The command line with its verbs."""
    whole = scoring_parser(
        description="Score folders of clips, and draw them.", output=Path("report")
    )
    whole.add_argument(
        "--max_clips",
        type=PositiveInt,
        default=MAX_CLIPS,
        help="Of the pictures; cells of the page.",
    )
    whole.add_argument("--title", default="Evaluation of dance videos", help="Of the page.")
    whole.add_argument(
        "--embed_mb",
        type=NonNegativeFloat,
        default=EMBED_MB,
        help="Videos up to this size are put into the page, larger ones beside it, in videos/.",
    )
    scoring = scoring_parser(description="Score folders of clips.", output=Path("metrics.json"))
    table = ArgumentParser(description="Write a table of scores.")
    table.add_argument("metrics_file", type=Path)
    table.add_argument(
        "--format", type=Form | None, default=None, help="Default: by --output, else markdown."
    )
    table.add_argument(
        "--layout",
        type=Layout,
        default="auto",
        help="All values, the published tables with rows of ours, or what there is of both.",
    )
    table.add_argument(
        "--intervals", type=bool, default=False, help="Also in the layout of published tables."
    )
    table.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Write it there, too; a folder gets both layouts as .md, .tex and .csv.",
    )
    sheet = picture_parser(
        description="Draw clips, their sound and beats on one picture.",
        output=Path("contact_sheet.png"),
    )
    sheet.add_argument(
        "--pair", type=bool, default=False, help="Clips of the same music below each other."
    )
    beside = picture_parser(
        description="Show systems beside each other, with sound.", output=Path("side_by_side")
    )
    parser = ArgumentParser(prog="evaluate.py", description="Judge generated clips.")
    verbs = parser.add_subcommands(dest="verb")
    verbs.add_subcommand("report", whole, help="Scores, tables and pictures in one folder.")
    verbs.add_subcommand("score", scoring, help="Score folders of clips.")
    verbs.add_subcommand("table", table, help="Write a table of scores.")
    verbs.add_subcommand("sheet", sheet, help="Draw clips on one picture.")
    verbs.add_subcommand("side_by_side", beside, help="Show systems beside each other.")
    verbs.add_subcommand("compare", comparing_parser(), help="Let a judge compare two systems.")
    add_study(verbs)
    return parser


def main(args: list[str] | None = None) -> None:
    """Run one verb.

    Args:
        args: Command line; None takes the process's own.

    Raises:
        EvaluationError, ClipListError, ReportError, StudyError: With one sentence for the user.
    """
    config = build_parser().parse_args(args)
    settings = config[config.verb]
    if config.verb == "report":
        typed = sys.argv[1:] if args is None else args
        report(settings, command=shlex.join(["python", "evaluate.py", *typed]))
    elif config.verb == "score":
        score_folders(settings)
    elif config.verb == "study":
        run_study(settings)
    elif config.verb == "compare":
        compare(settings)
    elif config.verb == "table":
        print_table(settings)
    else:
        entries, _ = collect_clips(settings.folders)
        limits = {"beats": music_beats(settings), "max_height": settings.max_height}
        if config.verb == "sheet":
            draw_sheet(
                entries, settings.output, pair=settings.pair, max_clips=settings.max_clips, **limits
            )
        else:
            write_side_by_side(entries, settings.output, max_videos=settings.max_clips, **limits)


if __name__ == "__main__":
    try:
        main()
    except (EvaluationError, ClipListError, ReportError, StudyError) as error:
        sys.exit(f"evaluate.py: {error}")
    except KeyboardInterrupt:
        print("evaluate.py: stopped; repeat the command to go on.", file=sys.stderr)
        sys.exit(130)
