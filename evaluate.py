"""Score folders of generated clips and print the tables.

    python evaluate.py score FOLDER [FOLDER ...] --output metrics.json
    python evaluate.py table metrics.json --format csv --output table.csv
    python evaluate.py sheet FOLDER [FOLDER ...] --output contact_sheet.png

`score` can be stopped and repeated: what metrics.json already holds is not computed again. Its
fields are described in `musicinfuser.metrics.report`.
"""

import functools
import json
import sys
import time
from argparse import ArgumentError
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import OpenUnitInterval, PositiveFloat, PositiveInt
from tqdm import tqdm

from musicinfuser.media.audio import read_audio
from musicinfuser.media.contact_sheet import SheetRow, contact_sheet
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.metrics.clip import ClipMetric, ScoredClip
from musicinfuser.metrics.clip_folder import ClipEntry, ClipListError, list_clips
from musicinfuser.metrics.music_beats import BEAT_RATE_HZ, MusicBeats
from musicinfuser.metrics.report import (
    Document,
    ReportError,
    compared_rows,
    known_values,
    long_rows,
    read_report,
    summarise,
)
from musicinfuser.metrics.scoring import score_clip, start_record
from musicinfuser.tables import FORMATS
from musicinfuser.whole_files import write_text

DEFAULT_METRICS = Path(__file__).parent / "configs" / "metrics.yaml"
SAVE_EVERY_SECONDS = 30.0


class EvaluationError(ValueError):
    """The evaluation cannot be done as asked. The message is one sentence."""


def load_clip(entry: ClipEntry, *, beats: MusicBeats, seed: int, max_height: int) -> ScoredClip:
    """Decode one clip; frames taller than ``max_height`` px are scaled down.

    Raises:
        ValueError: If the file cannot be read.
    """
    info = probe_video(entry.path)
    fps = entry.fps or info.average_fps
    height = min(info.height, max_height)
    frames = read_clip(
        entry.path,
        start_seconds=0.0,
        num_frames=entry.num_frames or max(round(info.duration_seconds * fps), 1),
        height=height,
        width=max(round(info.width * height / info.height), 1),
        fps=fps,
        crop=None,
    )
    return ScoredClip(
        frames=frames,
        fps=fps,
        waveform=read_audio(entry.path, rate_hz=BEAT_RATE_HZ) if info.has_audio else None,
        rate_hz=BEAT_RATE_HZ,
        name=entry.file,
        seed=seed,
        beats_seconds=functools.partial(beats.read, entry, duration_seconds=len(frames) / fps),
    )


def collect_clips(folders: Sequence[Path]) -> tuple[list[ClipEntry], list[str]]:
    """Clips of all folders in order, and the mp4 files that their manifests leave out.

    Raises:
        ClipListError: If a folder holds no clips.
        EvaluationError: If two folders would be mixed up under one name.
    """
    entries: list[ClipEntry] = []
    unlisted: list[str] = []
    named: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        clips, left_out = list_clips(folder)
        name = folder.resolve().name
        if any(clip.system == name for clip in clips) and named.setdefault(name, folder) != folder:
            raise EvaluationError(
                f"{named[name]} and {folder} would both be the system {name!r}; rename one folder "
                f"or name the systems in its clips.csv."
            )
        entries += clips
        unlisted += [str(folder / file) for file in left_out]
    return entries, unlisted


def music_beats(settings: Namespace) -> MusicBeats:
    """Where beats come from, by the options of `add_beat_options`."""
    return MusicBeats(
        functools.partial(read_audio, rate_hz=BEAT_RATE_HZ),
        mode=settings.music_beats,
        folder=settings.beats_folder,
        start_bpm=settings.start_bpm,
        tightness=settings.tightness,
    )


def score(settings: Namespace, *, metrics: Sequence[ClipMetric], specs: list[Document]) -> Document:
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
    names = [metric.name for metric in metrics]
    entries, unlisted = collect_clips(settings.folders)
    known = known_values(read_report(settings.output)) if settings.output.exists() else {}
    beats = music_beats(settings)
    load = functools.partial(
        load_clip, beats=beats, seed=settings.seed, max_height=settings.max_height
    )
    by_name = dict(zip(names, specs, strict=True))
    decoding = [settings.seed, settings.max_height]
    records = [
        start_record(entry, beats=beats, specs=by_name, decoding=decoding) for entry in entries
    ]
    for record in records:
        for metric in metrics:
            values = known.get((record["sha256"], metric.name, record["keys"].get(metric.name)))
            if values is not None and values.keys() == set(metric.value_names):
                record["values"][metric.name] = values

    def save() -> Document:
        settled = [{*record["values"], *record["failures"]} for record in records]
        document = {
            "systems": summarise(
                records, metrics, seed=settings.seed, confidence=settings.confidence
            ),
            "clips": records,
            "seed": settings.seed,
            "confidence": settings.confidence,
            "metrics": specs,
            "complete": all(done >= set(names) for done in settled),
            "unlisted": unlisted,
        }
        write_text(settings.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
        return document

    saved_at = time.monotonic()
    try:
        for entry, record in tqdm(
            zip(entries, records, strict=True), total=len(entries), unit="clip", desc="score"
        ):
            score_clip(entry, record, metrics, load=load)
            if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                save()
                saved_at = time.monotonic()
    finally:
        document = save()
    return document


def draw_sheet(settings: Namespace) -> None:
    """Draw the clips of the folders on one picture, with sound and beats under each.

    Raises:
        ClipListError: If a folder holds no clips.
        EvaluationError: If none of the clips can be read.
    """
    entries, _ = collect_clips(settings.folders)
    beats = music_beats(settings)
    rows = []
    for entry in entries[: settings.max_clips]:
        try:
            clip = load_clip(entry, beats=beats, seed=0, max_height=settings.max_height)
            times = clip.music_beats().tolist() if clip.waveform is not None else None
        except ValueError as error:
            print(f"not drawn: {error}")
            continue
        rows.append(
            SheetRow(
                label=f"{entry.system}: {entry.file}",
                frames=clip.frames,
                fps=clip.fps,
                audio=clip.waveform,
                audio_rate_hz=clip.rate_hz if clip.waveform is not None else None,
                beats_seconds=times,
            )
        )
    if not rows:
        raise EvaluationError(f"None of the {len(entries)} clips could be drawn.")
    contact_sheet(rows, settings.output)
    print(f"{len(rows)} clips on {settings.output}")


def read_metrics(path: Path) -> tuple[list[ClipMetric], list[Document]]:
    """Build the metrics that a YAML file lists.

    Returns:
        The metrics, and the class path and arguments of each with all defaults filled in.

    Raises:
        EvaluationError: If the file is missing or empty, names something that does not exist or
            gives two metrics one name.
    """
    # A parser of its own: a list given over a default list would inherit arguments from the
    # default's entries by their position.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--metrics", type=list[ClipMetric], sub_configs=True)
    try:
        config = parser.parse_args([f"--metrics={path}"])
    except ArgumentError as error:
        raise EvaluationError(f"{path}: {' '.join(str(error).split())}") from error
    specs = [json.loads(json.dumps(spec.as_dict(), default=str)) for spec in config.metrics or ()]
    metrics = parser.instantiate(config).metrics if specs else []
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"{path}: names the metrics {names}; give each a `name` of its own.")
    return metrics, specs


def print_summary(document: Document) -> None:
    """Print the table, then what failed and why."""
    print(FORMATS["markdown"](compared_rows(document)))
    for path in document["unlisted"]:
        print(f"not scored: {path} is in no line of its manifest.")
    failed = [record for record in document["clips"] if record["failures"]]
    if failed:
        print(f"{len(failed)} of {len(document['clips'])} clips failed:")
    reasons = Counter(text for record in failed for text in set(record["failures"].values()))
    for text, count in reasons.most_common():
        print(f"- {text}" + (f" ({count} clips)" if count > 1 else ""))


def add_beat_options(parser: ArgumentParser) -> None:
    """Where music beats come from."""
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
    scoring = ArgumentParser(description="Score folders of clips.")
    scoring.add_argument("--config", action="config", help="YAML file with any of these options.")
    scoring.add_argument(
        "folders",
        nargs="+",
        type=Path,
        help="Output of `train.py predict`, or mp4 files with an optional clips.csv.",
    )
    scoring.add_argument(
        "--metrics",
        type=Path,
        default=DEFAULT_METRICS,
        help="YAML list of metrics, each with class_path and init_args.",
    )
    scoring.add_argument("--output", type=Path, default=Path("metrics.json"))
    scoring.add_argument("--seed", type=int, default=0, help="Of all random draws.")
    scoring.add_argument(
        "--confidence", type=OpenUnitInterval, default=0.95, help="Of the intervals."
    )
    add_beat_options(scoring)
    scoring.add_argument(
        "--max_height",
        type=PositiveInt,
        default=480,
        help="Taller frames are scaled down to it, in px.",
    )
    table = ArgumentParser(description="Write a table of scores.")
    table.add_argument("metrics_file", type=Path)
    table.add_argument("--format", type=Literal["markdown", "csv"], default="markdown")
    table.add_argument("--output", type=Path | None, default=None, help="Default: print it.")
    sheet = ArgumentParser(description="Draw clips, their sound and beats on one picture.")
    sheet.add_argument("folders", nargs="+", type=Path, help="As for `score`.")
    sheet.add_argument("--output", type=Path, default=Path("contact_sheet.png"))
    sheet.add_argument("--max_clips", type=PositiveInt, default=12)
    sheet.add_argument("--max_height", type=PositiveInt, default=480)
    add_beat_options(sheet)
    parser = ArgumentParser(prog="evaluate.py", description="Judge generated clips.")
    verbs = parser.add_subcommands(dest="verb")
    verbs.add_subcommand("score", scoring, help="Score folders of clips.")
    verbs.add_subcommand("table", table, help="Write a table of scores.")
    verbs.add_subcommand("sheet", sheet, help="Draw clips on one picture.")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run one verb.

    Args:
        args: Command line; None takes the process's own.

    Raises:
        EvaluationError, ClipListError, ReportError: With one sentence for the user.
    """
    parser = build_parser()
    config = parser.parse_args(args)
    if config.verb == "table":
        document = read_report(config.table.metrics_file)
        rows = compared_rows if config.table.format == "markdown" else long_rows
        text = FORMATS[config.table.format](rows(document))
        if config.table.output is None:
            print(text, end="")
        else:
            write_text(config.table.output, text)
        return
    if config.verb == "sheet":
        draw_sheet(config.sheet)
        return
    metrics, specs = read_metrics(config.score.metrics)
    document = score(config.score, metrics=metrics, specs=specs)
    print_summary(document)
    if not any(record["values"] for record in document["clips"]):
        raise EvaluationError(
            f"None of the {len(document['clips'])} clips could be scored; the reasons are in "
            f"{config.score.output}."
        )


if __name__ == "__main__":
    try:
        main()
    except (EvaluationError, ClipListError, ReportError) as error:
        sys.exit(f"evaluate.py: {error}")
