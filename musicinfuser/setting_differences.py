"""Groups of settings laid over each other, and what differs between two of them."""

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


def differences(
    settings: dict[str, Any], stored: dict[str, Any], *, where: str = "checkpoint"
) -> list[str]:
    """What differs between configured and stored settings, each said in a few words."""
    mine, theirs = flatten(settings), flatten(stored)
    return [
        f"{key}: {theirs.get(key)} in the {where}, {mine.get(key)} in the config"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, lists as tuples."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = tuple(value) if isinstance(value, list | tuple) else value
    return flat
