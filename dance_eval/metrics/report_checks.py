"""Whether a metrics.json says what the rest of the program takes from it, place by place."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Problem = tuple[str, str]
"""Where in the document, and what is wrong there."""
Check = Callable[[Any], str]
"""What is wrong with a value; empty if nothing."""


def first_problem(
    document: Any, *, required: frozenset[str], needed: Sequence[str]
) -> Problem | None:
    """What is wrong first in the content of a metrics.json, if anything is.

    What older files leave out may be left out.

    Args:
        document: The content.
        required: The fields that make it a metrics.json.
        needed: Fields of a clip that the reader cannot do without.
    """
    return next(_problems(document, required, needed), None)


def _problems(document: Any, required: frozenset[str], needed: Sequence[str]) -> Iterator[Problem]:
    if not isinstance(document, dict) or not document.keys() >= required:
        yield "", "is not a metrics file of `evaluate.py score`"
        return
    yield from _fields(document, "", _DOCUMENT)
    if isinstance(document["systems"], dict):
        for system, values in document["systems"].items():
            place = f"systems[{system!r}]"
            if problem := _mapping(values):
                yield place, problem
                continue
            for name, summary in values.items():
                yield from _summary(summary, f"{place}[{name!r}]")
    if isinstance(document["clips"], list):
        for number, clip in enumerate(document["clips"]):
            yield from _clip(clip, f"clips[{number}]", needed)


def _summary(summary: Any, place: str) -> Iterator[Problem]:
    if problem := _mapping(summary):
        yield place, problem
        return
    yield from _fields(summary, place, _SUMMARY, must=("mean", "low", "high", "n"))
    low, high, mean = (summary.get(name) for name in ("low", "high", "mean"))
    if (low is None) != (high is None) or (mean is None and low is not None):
        yield place, "has only a part of mean, low and high"


def _clip(clip: Any, place: str, needed: Sequence[str]) -> Iterator[Problem]:
    if problem := _mapping(clip):
        yield place, problem
        return
    if isinstance(clip.get("file"), str):
        place = f"{place} ({clip['file']})"
    yield from _fields(clip, place, _CLIP, must=("system", "values", *needed))
    values = clip["values"] if isinstance(clip.get("values"), dict) else {}
    for metric, numbers in values.items():
        inside = f"{place}.values[{metric!r}]"
        if problem := _mapping(numbers):
            yield inside, problem
        else:
            yield from _fields(numbers, inside, dict.fromkeys(numbers, _number))
        # `score` finds what it knows by key; tables of old files need none.
        if isinstance(clip.get("keys"), dict) and metric not in clip["keys"]:
            yield f"{place}.keys", f"lacks {metric!r}, which has values"
    for name in ("keys", "features", "failures"):
        if isinstance(clip.get(name), dict):
            yield from _fields(clip[name], f"{place}.{name}", dict.fromkeys(clip[name], _text))


def _fields(
    mapping: Mapping[str, Any], place: str, checks: Mapping[str, Check], must: Sequence[str] = ()
) -> Iterator[Problem]:
    for name in must:
        if name not in mapping:
            yield place, f"lacks {name!r}"
    for name, check in checks.items():
        if name in mapping and (problem := check(mapping[name])):
            yield f"{place}.{name}" if place else name, problem


def _said(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is(kind: type | tuple[type, ...], name: str) -> Check:
    def check(value: Any) -> str:
        # In Python, true is a whole number.
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        return f"is {_said(value)}, not {name}" if wrong else ""

    return check


def _number(value: Any) -> str:
    return _is((int, float), "a number")(value) or (
        "" if math.isfinite(value) else f"is {_said(value)}, not a finite number"
    )


def _count(value: Any) -> str:
    return _is(int, "a whole number")(value) or ("" if value >= 0 else f"is {value}, below 0")


def _or_null(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


_text = _is(str, "a text")
_mapping = _is(dict, "an object")
_list = _is(list, "a list")
_DOCUMENT: dict[str, Check] = {
    "systems": _mapping,
    "clips": _list,
    "seed": _is(int, "a whole number"),
    "confidence": lambda value: (
        _number(value) or ("" if 0 < value < 1 else f"is {value}, not between 0 and 1")
    ),
    "complete": _is(bool, "true or false"),
    "findings": _mapping,
    "metrics": _list,
    "unlisted": _list,
}
_SUMMARY: dict[str, Check] = {
    "mean": _or_null(_number),
    "low": _or_null(_number),
    "high": _or_null(_number),
    "n": _count,
    "num_failed": _count,
}
_CLIP: dict[str, Check] = {
    "file": _text,
    "system": _text,
    "folder": _text,
    "track": _or_null(_text),
    "track_offset_seconds": _number,
    "prompt": _or_null(_text),
    "seed": _or_null(_is(int, "a whole number")),
    "heard": _or_null(_text),
    "music_beats": _text,
    "beats_file": _or_null(_text),
    "music_bpm": _or_null(_number),
    "known_bpm": _or_null(_number),
    "sha256": _or_null(_text),
    "track_sha256": _or_null(_text),
    "num_frames": _or_null(_count),
    "fps": _or_null(_number),
    "values": _mapping,
    "failures": _mapping,
    "features": _mapping,
    "keys": _mapping,
}
