"""The document that `evaluate.py score` writes, and the tables made from it.

Fields of metrics.json:
    systems: {system: {"metric/value": {mean, low, high, n, num_failed}}}; mean is null without
        clips, low and high are null with fewer than two. n counts the clips that have the value;
        where a metric's values may be absent, such as colours that a prompt does not name, it is
        smaller than the number of clips scored. For metrics over sets of clips n counts what the
        value is taken over, such as cells, and mean holds what their class says, such as a median
        or a distance; they are there once every clip is scored.
    clips: One record per clip: folder, file, system, track, track_offset_seconds, prompt, seed,
        heard, track_sha256 (null where the track is not there), music_beats (what the beats are
        taken from: "truth", "track" or "clip"), beats_file (null where it is not there), sha256,
        num_frames and fps (null until the clip is decoded), values ({metric: {value: number}}),
        features ({metric over sets: file of the clip's numbers in the folder beside, such as
        metrics.features}), failures ({metric: reason}) and keys ({metric: digest of all settings
        that the values depend on}).
    findings: {metric: what its `findings` says of all clips together}, such as whether a judge
        listens; sentences for people under "printed".
    seed, confidence, metrics: The settings, metrics with all defaults filled in and with hashes of
        the weights that they read.
    complete: False if the run was stopped before every clip was scored or had failed.
    unlisted: mp4 files that a manifest does not mention; they are not scored.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dance_eval.metrics.clip import ClipMetric
from dance_eval.metrics.intervals import MeanInterval, bootstrap_mean
from dance_eval.metrics.report_checks import first_problem
from musicinfuser.errors import UserError
from musicinfuser.label_files import LabelError, parse_json, read_text
from musicinfuser.tables import Row

Document = dict[str, Any]

REQUIRED_FIELDS = frozenset({"systems", "clips", "seed", "confidence", "complete"})


class ReportError(UserError):
    """A file is not a metrics.json. The message is one sentence."""


def read_report(path: Path, *, clip_fields: Sequence[str] = ()) -> Document:
    """Read a metrics.json and see that every field is what it must be.

    Args:
        path: The file.
        clip_fields: Fields that no clip may lack, besides its system and values.

    Raises:
        ReportError: If the file is missing or something else, with the place in it.
    """
    try:
        document: Document = parse_json(read_text(path), path)
    except LabelError as error:
        raise ReportError(f"{error} A metrics file is written by `evaluate.py score`.") from error
    if problem := first_problem(document, required=REQUIRED_FIELDS, needed=clip_fields):
        place, wrong = problem
        raise ReportError(
            f"{path}: {place} {wrong}; mend it there, or move the file away and score again."
            if place
            else f"{path}: {wrong}; name another."
        )
    return document


def known_values(document: Document) -> dict[tuple[str, str, str], dict[str, float]]:
    """Values of an earlier run by (sha256 of the clip, metric, key)."""
    return {
        (clip["sha256"], metric, clip["keys"][metric]): values
        for clip in document["clips"]
        if clip.get("sha256") and "keys" in clip
        for metric, values in clip["values"].items()
    }


def known_shapes(document: Document) -> dict[str, Document]:
    """Number of frames and rate of the clips of an earlier run, by sha256."""
    return {
        clip["sha256"]: {"num_frames": clip["num_frames"], "fps": clip["fps"]}
        for clip in document["clips"]
        if clip.get("sha256") and None not in (clip.get("fps"), clip.get("num_frames"))
    }


def known_tempi(document: Document) -> dict[tuple[str, str], float]:
    """Tempi of the beats of an earlier run by (metric, key); keys know where beats came from."""
    return {
        (metric, clip["keys"][metric]): clip["music_bpm"]
        for clip in document["clips"]
        if clip.get("music_bpm") and "keys" in clip
        for metric in clip["values"]
    }


def summarise(
    clips: Sequence[Document], metrics: Sequence[ClipMetric], *, seed: int, confidence: float
) -> Document:
    """Mean over clips and bootstrap interval of every value of every system."""
    systems: Document = {}
    for system in dict.fromkeys(clip["system"] for clip in clips):
        own = [clip for clip in clips if clip["system"] == system]
        systems[system] = {}
        for metric in metrics:
            scored = [clip["values"][metric.name] for clip in own if metric.name in clip["values"]]
            for value in metric.value_names:
                name = f"{metric.name}/{value}"
                interval = bootstrap_mean(
                    [values[value] for values in scored if value in values],
                    seed=seed,
                    name=name,
                    confidence=confidence,
                )
                systems[system][name] = as_fields(interval) | {
                    "num_failed": sum(metric.name in clip["failures"] for clip in own),
                }
    return systems


def as_fields(interval: MeanInterval) -> Document:
    """Mean, ends of the interval and n, as metrics.json has them."""
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.num_values,
    }


def odd_shapes(document: Document) -> list[str]:
    """Lengths and rates of the clips, if they differ: one line each, the most frequent first."""
    clips: dict[tuple[int, float], list[str]] = {}
    for clip in document["clips"]:
        if None not in (clip.get("fps"), clip.get("num_frames")):
            shape = clip["num_frames"], round(clip["fps"], 3)
            clips.setdefault(shape, []).append(f"{clip['system']}: {clip['file']}")
    if len(clips) < 2:
        return []
    return [
        f"{len(names)} of {frames} frames at {fps:g} fps, such as {names[0]}"
        for (frames, fps), names in sorted(clips.items(), key=lambda item: -len(item[1]))
    ]


def compared_rows(document: Document) -> list[Row]:
    """One row per value and one column per system, ``mean [low, high]``, for reading.

    The first row says how many clips there are. After the values of a metric come the numbers of
    clips that it scored and failed on, where those are not all and none; a value that only some of
    them have says how many. A value that no system has is left out.
    """
    systems: Document = document["systems"]
    first = f"mean [{document['confidence']:.0%} interval]"
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    num_clips = Counter(clip["system"] for clip in document["clips"])
    rows: list[Row] = [_counts(first, "clips", {system: num_clips[system] for system in systems})]
    for metric, group in itertools.groupby(names, key=lambda name: name.partition("/")[0]):
        own = list(group)
        num_scored = {
            system: max(values.get(name, {"n": 0})["n"] for name in own)
            for system, values in systems.items()
        }
        for name in own:
            cells = {
                system: _cell(values[name], num_scored=num_scored[system])
                for system, values in systems.items()
                if name in values
            }
            if any(cell is not None for cell in cells.values()):
                rows.append({first: name, **cells})
        num_failed = {
            system: max(values.get(name, {}).get("num_failed", 0) for name in own)
            for system, values in systems.items()
        }
        if any(num_scored[system] != num_clips[system] for system in systems):
            rows.append(_counts(first, f"{metric}: clips scored", num_scored))
        if any(num_failed.values()):
            rows.append(_counts(first, f"{metric}: clips failed", num_failed))
    return rows


def is_count(name: str) -> bool:
    """Whether a row of `compared_rows` counts something instead of scoring it."""
    metric, _, value = name.partition("/")
    return value.startswith(("num_", "without_")) or ":" in metric or name == "clips"


def headline_rows(document: Document) -> list[Row]:
    """The first value of every metric with a level of chance, ``mean [low, high], chance mean``."""
    rows: list[Row] = []
    systems: Document = document["systems"]
    names = list(dict.fromkeys(name for values in systems.values() for name in values))
    for metric, group in itertools.groupby(names, key=lambda name: name.partition("/")[0]):
        name, *others = group
        if f"{metric}/chance" not in others:
            continue
        row: dict[str, str | None] = {"score against chance": name.removesuffix("/score")}
        for system, values in systems.items():
            score, chance = values.get(name), values.get(f"{metric}/chance")
            if score and chance and score["mean"] is not None:
                text = _cell(score, num_scored=score["n"])
                row[system] = f"{text}, chance {chance['mean']:.3f}"
        rows.append(row)
    return rows


def _counts(first: str, label: str, counts: dict[str, int]) -> Row:
    return {first: label, **{system: str(count) for system, count in counts.items()}}


def _cell(summary: Document, *, num_scored: int) -> str | None:
    if summary["mean"] is None:
        return None
    count = f" (n = {summary['n']})" if summary["n"] < num_scored else ""
    if summary["low"] is None:
        return f"{summary['mean']:.3f}{count}"
    return f"{summary['mean']:.3f} [{summary['low']:.3f}, {summary['high']:.3f}]{count}"


def long_rows(document: Document) -> list[Row]:
    """One row per system and value with the numbers in columns of their own, for programs."""
    return [
        {"system": system, "metric": name, **summary}
        for system, values in document["systems"].items()
        for name, summary in values.items()
    ]
