"""What differs between two groups of settings, said in a few words."""

from typing import Any


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
