"""Groups of settings laid over each other, and what differs between two of them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two configs as one, a new one: mappings merge, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = laid_over(old, value)
        merged[key] = value
    return merged


def without_defaults(spec: Any, *names: str) -> dict[str, Any]:
    """A dataclass as a mapping, without options of these names that have their default.

    For options that are younger than the files that it is compared with.
    """
    found = asdict(spec)
    for name in names:
        if found[name] == getattr(type(spec), name):
            del found[name]
    return found


def with_defaults(stored: Mapping[str, Any], spec: type) -> dict[str, Any]:
    """Stored options of a dataclass, with the defaults of those that they lack."""
    fields = dataclasses.fields(spec)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING} | dict(
        stored
    )


def differences(
    settings: Mapping[str, Any],
    stored: Mapping[str, Any],
    *,
    where: str = "checkpoint",
    defaults: Mapping[str, Any] | None = None,
    missing: Any = None,
) -> list[str]:
    """What differs between configured and stored settings, each said in a few words.

    Args:
        settings: Of the config.
        stored: Of what was made before.
        where: What holds them.
        defaults: By dotted name, what an option has where only one of the two names it. What is
            older than an option was made with its default.
        missing: What other names have there.
    """
    sides = flatten(stored), flatten(settings)
    known = defaults or {}
    found = []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        theirs, mine = (side.get(key, known.get(key, missing)) for side in sides)
        if theirs == mine:
            continue
        said = [
            f"nothing (by default {value})" if key in known and key not in side else f"{value}"
            for side, value in zip(sides, (theirs, mine), strict=True)
        ]
        found.append(f"{key}: {said[0]} in the {where}, {said[1]} in the config")
    return found


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, lists as tuples; a group without keys is a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = tuple(value) if isinstance(value, list | tuple) else value
    return flat
