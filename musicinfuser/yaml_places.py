"""Where a key stands: the file and line, or the option of the command line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

Source = tuple[Path, Sequence[str]]
"""A YAML file, and the keys under which its content stands."""


class _Entry(NamedTuple):
    keys: tuple[str, ...]
    """From the top; an entry of a list is ``[0]``."""
    line: int
    text: str | None
    """The value as it is written; None for a list or a mapping."""
    is_second: bool
    """Whether its mapping has the key twice."""


def find(
    path: Sequence[str],
    files: Sequence[Source],
    arguments: Sequence[str],
    *,
    value: str | None = None,
) -> str:
    """``file: line n: key: ``, ``--option: `` or ``key: ``, for the start of a sentence.

    Args:
        path: Keys from the top, without ``init_args`` and positions in lists.
        files: The files; the last one that has the key counts.
        arguments: The command line, which comes before files.
        value: What stands there or further inside, where that is known.
    """
    wanted = _plain(path)
    read = [str(file) for file, _ in files]
    for name, given in reversed(list(_options(arguments))):
        option = _plain([name.lstrip("-").rstrip("+")])
        inside = wanted[len(option) :]
        is_it = wanted and wanted[: len(option)] == option[: len(wanted)] and given not in read
        if is_it and (value is None or value in given) and (not inside or inside[-1] in given):
            return f"{name}: "
    for file, above in reversed(files):
        try:
            root = compose(file.read_text(encoding="utf-8"))
            entries = [(_plain(entry.keys), entry) for entry in _entries(root, tuple(above))]
        except (OSError, ValueError, yaml.YAMLError):
            entries = []
        fitting = [entry for keys, entry in entries if keys == wanted]
        if value is not None:
            within = [entry for keys, entry in entries if keys[: len(wanted)] == wanted]
            fitting = [entry for entry in within if entry.text == value] or fitting
        if fitting:
            return f"{file}: line {fitting[0].line}: {_dotted(fitting[0].keys[len(above) :])}: "
        if wanted and wanted == _plain(above):
            return f"{file}: "
    return f"{_dotted(wanted)}: " if wanted else ""


def compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML text; None where it is empty.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    try:
        return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:  # ten times slower, and says better what is wrong
        return yaml.compose(text, Loader=yaml.SafeLoader)


def second_of_a_key(root: yaml.Node | None) -> tuple[str, int] | None:
    """A key that one mapping has twice, dotted, and the line of the second; None if none has."""
    entries = _entries(root)
    return next(((_dotted(entry.keys), entry.line) for entry in entries if entry.is_second), None)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values, however they are separated."""
    for argument, after in zip(arguments, [*arguments, ""][1:], strict=True):
        name, is_whole, value = argument.partition("=")
        if name.startswith("--"):
            yield name, value if is_whole or after.startswith("--") else after


def _entries(node: yaml.Node | None, above: tuple[str, ...] = ()) -> Iterator[_Entry]:
    """Every key and entry below a node."""
    children: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, item) for key, item in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(f"[{i}]", item, item) for i, item in enumerate(node.value)]
    seen: set[str] = set()
    for name, start, item in children:
        text = str(item.value) if isinstance(item, yaml.ScalarNode) else None
        keys = (*above, name)
        yield _Entry(keys, start.start_mark.line + 1, text, name in seen and name != "<<")
        seen.add(name)
        yield from _entries(item, keys)


def _plain(keys: Sequence[str]) -> list[str]:
    """Keys as errors name them; a dotted key is as good as a nested one."""
    parts = [part for key in keys for part in key.split(".")]
    return [p for p in parts if p not in ("init_args", "dict_kwargs") and not p.startswith("[")]


def _dotted(keys: Sequence[str]) -> str:
    return ".".join(keys).replace(".[", "[")
