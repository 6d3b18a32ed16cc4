"""Configs laid over each other, to see what a run was made with."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musicinfuser.label_files import read_yaml
from sweeps.errors import SweepError

Tree = dict[str, Any]


def read_config(path: str | Path) -> Tree:
    """A config file's content.

    Raises:
        SweepError: It cannot be read as one.
    """
    data = read_yaml(path)
    if data is not None and not isinstance(data, dict):
        raise SweepError(f"{path}: is no config of train.py; it must hold keys and values.")
    return data or {}


def laid_over(below: Tree, above: Mapping[str, Any]) -> Tree:
    """Two configs as one: mappings merge, everything else is replaced."""
    merged = copy.deepcopy(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = laid_over(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def with_options(below: Tree, options: Mapping[str, Any]) -> Tree:
    """A config with options set by their dotted names; their values replace what was there."""
    merged = copy.deepcopy(below)
    for name, value in options.items():
        *groups, leaf = name.split(".")
        node = merged
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {}
            node = node[group]
        node[leaf] = copy.deepcopy(value)
    return merged


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted names; lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two configs, one phrase each."""
    old, new = flat(before), flat(now)
    return [
        f"{name}: {old.get(name, 'nothing')} there, {new.get(name, 'nothing')} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, old) != new.get(name, new)
    ]


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line takes them."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in options.items()
    ]


def merged(layers: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> Tree:
    """Several layers of config files, each followed by options."""
    tree: Tree = {}
    for files, options in layers:
        for path in files:
            tree = laid_over(tree, read_config(path))
        tree = with_options(tree, options)
    return tree
