"""The document that `evaluate.py score` writes, and the tables made from it.

Fields of metrics.json:
    systems: {system: {"metric/value": {mean, low, high, n, num_failed}}}; mean is null without
        clips, low and high are null with fewer than two. n counts the clips that have the value;
        where a metric's values may be absent, such as colours that a prompt does not name, it is
        smaller than the number of clips scored. For metrics over sets of clips n counts what the
        value is taken over, such as prompts, and mean holds what their class says, such as a median
        or a distance; they are there once every clip is scored.
    clips: One record per clip: folder, file, system, track, track_offset_seconds, prompt, seed,
        heard, heard_offset_seconds, track_sha256 (null where the track is not there), music_beats
        (what the beats are taken from: "truth", "track" or "clip"), beats_file (null where it is
        not there), sha256, num_frames and fps (null until the clip is decoded), values ({metric:
        {value: number}}), features ({metric over sets: file of the clip's numbers in the folder
        beside, such as metrics.features}), failures ({metric: reason}) and keys ({metric: digest of
        all settings that the values depend on}).
    findings: {metric: what its `findings` says of all clips together}, such as whether a judge
        responds to audio; sentences for people under "printed".
    seed, confidence, metrics: The settings, metrics with all defaults filled in and with hashes of
        the weights that they read.
    complete: False if the run was stopped before every clip was scored or had failed.
    unlisted: mp4 files that a manifest does not mention; they are not scored.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from dance_eval.metrics.clip import ClipMetric
from dance_eval.metrics.intervals import MeanInterval, bootstrap_mean
from musicinfuser.errors import UserError
from musicinfuser.label_files import LabelError, parse_json, read_text
from musicinfuser.tables import Row

Document = dict[str, Any]

REQUIRED_FIELDS = frozenset({"systems", "clips", "seed", "confidence", "complete"})


class ReportError(UserError):
    """A file is not a metrics.json. The message is one sentence."""


def read_report(path: Path, *, clip_fields: Sequence[str] = ()) -> Document:
    """Read a metrics.json and see that every field is what it must be.

    What older files leave out may be left out, but for a clip's system, values and ``clip_fields``.

    Raises:
        ReportError: If the file is missing or something else, with the place in it.
    """
    try:
        document: Document = parse_json(read_text(path), path)
    except LabelError as error:
        raise ReportError(f"{error} A metrics file is written by `evaluate.py score`.") from error
    if not isinstance(document, dict) or not document.keys() >= REQUIRED_FIELDS:
        raise ReportError(f"{path}: is not a metrics file of `evaluate.py score`; name another.")
    try:
        _Document.model_validate(document)
        for number, clip in enumerate(document["clips"]):
            if lacking := [name for name in clip_fields if name not in clip]:
                raise ReportError(f"{path}: clips[{number}] lacks {lacking[0]!r}{_MEND}")
    except ValidationError as error:
        raise ReportError(f"{path}: {_problem(error, document)}{_MEND}") from None
    return document


_MEND = "; mend it there, or move the file away and score again."


class _Checked(BaseModel):
    """Fields that are given must be what they say; others are not looked at."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Summary(_Checked):
    mean: float | None
    low: float | None
    high: float | None
    n: NonNegativeInt
    num_failed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        has = [number is not None for number in (self.mean, self.low, self.high)]
        if has[1] != has[2] or has[1] > has[0]:
            raise PydanticCustomError("part", "has only a part of mean, low and high")
        return self


class _Clip(_Checked):
    system: str
    values: dict[str, dict[str, float]]
    file: str = ""
    folder: str = ""
    music_beats: str = ""
    track: str | None = None
    prompt: str | None = None
    heard: str | None = None
    heard_offset_seconds: float | None = None
    beats_file: str | None = None
    sha256: str | None = None
    track_sha256: str | None = None
    track_offset_seconds: float = 0.0
    seed: int | None = None
    music_bpm: float | None = None
    other_bpm: list[float] | None = None
    known_bpm: float | None = None
    fps: float | None = None
    num_frames: NonNegativeInt | None = None
    failures: dict[str, str] = {}
    features: dict[str, str] = {}
    keys: dict[str, str] = {}

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        # `score` finds what it knows by key; tables of old files need none.
        lacking = sorted(self.values.keys() - self.keys.keys())
        if lacking and "keys" in self.model_fields_set:
            raise PydanticCustomError("key", f"keys lacks {lacking[0]!r}, which has values")
        return self


class _Document(_Checked):
    systems: dict[str, dict[str, _Summary]]
    clips: list[_Clip]
    seed: int
    confidence: float = Field(gt=0, lt=1)
    complete: bool
    findings: dict = {}
    metrics: list = []
    unlisted: list = []


def _problem(error: ValidationError, document: Document) -> str:
    """The first thing that is wrong, with its place; a clip's also names its file."""
    first = error.errors(include_url=False)[0]
    *above, last = first["loc"]
    is_missing = first["type"] == "missing"
    place, said = "", "null" if first["input"] is None else repr(first["input"])
    for part in above if is_missing else first["loc"]:
        place += f".{part}" if isinstance(part, str) else f"[{part}]"
        clip = document["clips"][part] if place == f".clips[{part}]" else None
        place += f" ({clip['file']})" if isinstance(clip, dict) and "file" in clip else ""
    if is_missing:
        return f"{place[1:]} lacks {last!r}"
    if first["type"] in ("part", "key"):
        return f"{place[1:]}: {first['msg']}"
    said = said if len(said) <= 40 else f"{said[:37]}..."
    wanted = first["msg"].partition(" or instance of ")[0]
    return f"{place[1:]} is {said}: {wanted[0].lower()}{wanted[1:]}"


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
                num_failed = sum(metric.name in clip["failures"] for clip in own)
                systems[system][name] = interval.as_fields() | {"num_failed": num_failed}
    return systems


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


def by_metric(document: Document) -> Iterator[tuple[str, list[str]]]:
    """The metrics of all systems, each with the names of its values."""
    names = dict.fromkeys(name for values in document["systems"].values() for name in values)
    for metric, group in itertools.groupby(names, key=lambda name: name.partition("/")[0]):
        yield metric, list(group)


def compared_rows(document: Document) -> list[Row]:
    """One row per value and one column per system, ``mean [low, high]``, for reading.

    The first row says how many clips there are. After the values of a metric come the numbers of
    clips that it scored and failed on, where those are not all and none; a value that only some of
    them have says how many. A value that no system has is left out.
    """
    systems: Document = document["systems"]
    first = f"mean [{document['confidence']:.0%} interval]"
    num_clips = Counter(clip["system"] for clip in document["clips"])

    def counts(name: str, numbers: Mapping[str, int]) -> Row:
        return {first: name, **{system: str(numbers[system]) for system in systems}}

    rows: list[Row] = [counts("clips", num_clips)]
    for metric, own in by_metric(document):
        num_scored, num_failed = (
            {s: max(v.get(name, {}).get(count, 0) for name in own) for s, v in systems.items()}
            for count in ("n", "num_failed")
        )
        for name in own:
            row = {
                system: interval_text(values[name], num_scored=num_scored[system])
                for system, values in systems.items()
                if name in values
            }
            if any(text is not None for text in row.values()):
                rows.append({first: name, **row})
        if any(num_scored[system] != num_clips[system] for system in systems):
            rows.append(counts(f"{metric}: clips scored", num_scored))
        if any(num_failed.values()):
            rows.append(counts(f"{metric}: clips failed", num_failed))
    return rows


def is_count(name: str) -> bool:
    """Whether a row of `compared_rows` counts something instead of scoring it."""
    metric, _, value = name.partition("/")
    return value.startswith(("num_", "without_")) or ":" in metric or name == "clips"


def mismatched_control(systems: Document, system: str) -> str | None:
    """The name under which a system conditioned on another track is there."""
    names = (f"{system}, mismatched audio", f"{system}, hears another track")
    return next((name for name in names if name in systems), None)


# The last two are names of versions before 0.2.
CONTROL_NAME = re.compile(
    r" at tempo \d+(?:\.\d+)?$|, (?:shifted|silent|mismatched|no) audio$|"
    r", hears (?:another track|nothing)$"
)


def interval_text(summary: Document, *, num_scored: int) -> str | None:
    """``mean [low, high]`` of a value, with its n if fewer than so many clips have it."""
    text = MeanInterval(summary["mean"], summary["low"], summary["high"]).text()
    count = f" (n = {summary['n']})" if summary["n"] < num_scored else ""
    return f"{text}{count}" if text else None


def long_rows(document: Document) -> list[Row]:
    """One row per system and value with the numbers in columns of their own, for programs."""
    return [
        {"system": system, "metric": name, **summary}
        for system, values in document["systems"].items()
        for name, summary in values.items()
    ]
