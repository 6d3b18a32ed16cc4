"""Options that several commands have, and the YAML file that lists metrics."""

import functools
import json
from argparse import ArgumentError
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt

from dance_eval.loading import EvaluationError
from dance_eval.metrics.beat_trackers import TrackerName, beat_tracker
from dance_eval.metrics.clip import NamedMetric
from dance_eval.metrics.music_beats import MusicBeats
from dance_eval.metrics.report import Document
from musicinfuser.errors import UserError, user_error
from musicinfuser.label_files import read_yaml
from musicinfuser.media.audio import read_audio
from musicinfuser.option_parser import OptionParser

MAX_CLIPS, MAX_HEIGHT = 12, 480


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
        help="Track beats, or read <track stem>.json.",
    )
    parser.add_argument(
        "--beats_folder", type=Path | None, default=None, help="Where <track stem>.json lies."
    )
    parser.add_argument(
        "--beat_tracker",
        type=TrackerName,
        default="librosa",
        help="aistpp: librosa as AIST++ calls it. The last three are programs (dance_eval/workers)",
    )
    parser.add_argument(
        "--beat_python", type=Path | None, default=None, help="Python of the program's environment."
    )
    parser.add_argument(
        "--beat_weights", type=Path | None, default=None, help="Checkpoint of Beat This!."
    )
    parser.add_argument("--start_bpm", type=PositiveFloat, default=120.0, help="For librosa.")
    parser.add_argument(
        "--known_tempo",
        type=bool,
        default=True,
        help="Track beats near the tempo that a list (column bpm) or an AIST name says.",
    )
    parser.add_argument("--tightness", type=PositiveFloat, default=100.0, help="For librosa.")


def music_beats(settings: Namespace) -> MusicBeats:
    """Where beats come from, by the options of `add_decoding_options`."""
    tracker = beat_tracker(
        settings.beat_tracker,
        start_bpm=settings.start_bpm,
        tightness=settings.tightness,
        python=settings.beat_python,
        weights=settings.beat_weights,
    )
    return MusicBeats(
        functools.partial(read_audio, rate_hz=tracker.rate_hz),
        mode=settings.music_beats,
        folder=settings.beats_folder,
        tracker=tracker,
        use_known_tempo=settings.known_tempo,
    )


def read_metrics(path: Path) -> tuple[list[NamedMetric], list[Document]]:
    """Build the metrics that a YAML file lists.

    Returns:
        The metrics, and the class path and arguments of each with all defaults filled in, with
        hashes of the weights it reads under ``files``.

    Raises:
        EvaluationError: If the file is missing or empty, names something that does not exist, sets
            something out of its range or gives two metrics one name, or if weights that a metric
            reads are not there.
    """
    # A parser of its own: a list given over a default list would inherit arguments from the
    # default's entries by their position.
    parser = OptionParser(exit_on_error=False)
    parser.add_argument("--metrics", type=list[NamedMetric], sub_configs=True)
    read_yaml(path)
    parser.files.append((path, ("metrics",)))
    try:
        config = parser.parse_args([f"--metrics={path}"])
    except ArgumentError as error:
        raise EvaluationError(str(error)) from error
    specs = [json.loads(json.dumps(spec.as_dict(), default=str)) for spec in config.metrics or ()]
    try:
        metrics = parser.instantiate(config).metrics if specs else []
    except Exception as error:
        # jsonargparse wraps what a nested class says in everything else that it tried.
        cause = user_error(error)
        if cause is None:
            raise
        raise EvaluationError(f"{path}: {' '.join(str(cause).split())}") from error
    try:
        for metric, spec in zip(metrics, specs, strict=True):
            # Weights may change under the same name; values are then due again.
            if files := metric.fingerprints():
                spec["files"] = files
    except (UserError, OSError) as error:
        raise EvaluationError(f"{path}: {metric.name}: {' '.join(str(error).split())}") from error
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"{path}: names the metrics {names}; give each a `name` of its own.")
    return metrics, specs
