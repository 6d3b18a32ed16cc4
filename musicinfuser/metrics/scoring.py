"""Scoring one clip after another into the records of metrics.json."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence

from musicinfuser.metrics.clip import ClipMetric, ScoredClip
from musicinfuser.metrics.clip_folder import ClipEntry, file_digest
from musicinfuser.metrics.music_beats import MusicBeats
from musicinfuser.metrics.report import Document


def start_record(
    entry: ClipEntry,
    *,
    beats: MusicBeats,
    specs: dict[str, Document],
    decoding: list[str | float],
) -> Document:
    """A clip's record in metrics.json before scoring; what is wrong already is a failure.

    Args:
        entry: The clip.
        beats: Where its music beats come from.
        specs: Class path and arguments of each metric, by its name.
        decoding: Everything else that values depend on: the seed and how clips are decoded.
    """
    problem, digest = entry.problem, None
    keys: dict[str, str] = {}
    if problem is None:
        try:
            digest = file_digest(entry.path)
            beats_key = beats.key(entry)
        except OSError as error:
            problem = f"{error.filename}: cannot be opened ({error.strerror})."
    if digest and entry.sha256 and digest != entry.sha256:
        problem = f"{entry.path}: is not the file that its manifest describes (sha256 differs)."
    if problem is None:
        shared = [entry.file, entry.fps, entry.num_frames, entry.prompt, *decoding, beats_key]
        for name, spec in specs.items():
            text = json.dumps([spec, shared], sort_keys=True)
            keys[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "folder": str(entry.folder),
        "file": entry.file,
        "system": entry.system,
        "track": entry.track,
        "track_offset_seconds": entry.track_offset_seconds,
        "prompt": entry.prompt,
        "music_beats": beats.source(entry)[0],
        "sha256": digest,
        "keys": keys,
        "values": {},
        "failures": {} if problem is None else dict.fromkeys(specs, problem),
    }


def score_clip(
    entry: ClipEntry,
    record: Document,
    metrics: Sequence[ClipMetric],
    *,
    load: Callable[[ClipEntry], ScoredClip],
) -> None:
    """Fill in what a clip's record lacks. Whatever goes wrong with one clip is written down there.

    Every kind of exception is a failure of this clip only: a batch runs for hours, and one odd file
    or one metric that runs out of memory must not end it.
    """
    settled = {*record["values"], *record["failures"]}
    missing = [metric for metric in metrics if metric.name not in settled]
    if not missing:
        return
    try:
        clip = load(entry)
    except Exception as error:
        record["failures"] |= {metric.name: reason(error) for metric in missing}
        return
    for metric in missing:
        try:
            values = metric.score_clip(clip)
            values = {name: float(values[name]) for name in metric.value_names if name in values}
            if not metric.is_complete(values):
                raise KeyError(f"{metric.name} gave {sorted(values)}, not {metric.value_names}")
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                raise ValueError(f"{entry.path}: {', '.join(bad)} came out as no finite number.")
            record["values"][metric.name] = values
        except Exception as error:
            record["failures"][metric.name] = reason(error)


def reason(error: Exception) -> str:
    """One line that says what went wrong; anything but a ValueError keeps its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
