"""Where a key stands: the file and line, or the option of the command line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

Place = str
"""``file: line n: key: ``, ``--option: `` or ``key: ``, for the start of a sentence."""
Source = tuple[Path, Sequence[str]]
"""A YAML file, and the keys under which its content stands."""

_UNSAID = ("init_args", "dict_kwargs")


def find(
    path: Sequence[str],
    files: Sequence[Source],
    arguments: Sequence[str],
    *,
    value: str | None = None,
) -> Place:
    """Find a key.

    Args:
        path: Keys from the top, without ``init_args`` and positions in lists.
        files: The files; the last one that has the key counts.
        arguments: The command line, which comes before files.
        value: What stands there or further inside, where that is known.
    """
    wanted = _plain(path)
    read = [str(file) for file, _ in files]
    for name, given in reversed(list(_options(arguments))):
        said = _plain(name.lstrip("-").rstrip("+").split("."))
        inside = wanted[len(said) :]
        is_it = wanted and wanted[: len(said)] == said[: len(wanted)] and given not in read
        if is_it and (value is None or value in given) and (not inside or inside[-1] in given):
            return f"{name}: "
    for file, above in reversed(files):
        places = list(_walk(file, above))
        fitting = [place for place in places if _plain(place[0]) == wanted]
        if value is not None:
            within = [place for place in places if _plain(place[0])[: len(wanted)] == wanted]
            fitting = [place for place in within if place[2] == value] or fitting
        if wanted == _plain(above) and not fitting and wanted:
            return f"{file}: "
        for keys, line, _ in fitting:
            return f"{file}: line {line}: {_dotted(keys[len(above) :])}: "
    return f"{_dotted(wanted)}: " if wanted else ""


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values, however they are separated."""
    for argument, after in zip(arguments, [*arguments, ""][1:], strict=True):
        name, is_whole, value = argument.partition("=")
        if name.startswith("--"):
            yield name, value if is_whole or after.startswith("--") else after


def second_of_a_key(text: str) -> tuple[str, int] | None:
    """A key that one mapping has twice, dotted, and the line of the second; None if none has.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    return next(_twice(yaml.compose(text, Loader=yaml.SafeLoader), ()), None)


def _twice(node: yaml.Node | None, above: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _twice(item, (*above, f"[{i}]"))
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, item in node.value:
        if key.value in seen and key.value != "<<":
            yield _dotted([*above, str(key.value)]), key.start_mark.line + 1
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        yield from _twice(item, (*above, str(key.value)))


def _walk(file: Path, above: Sequence[str]) -> Iterator[tuple[list[str], int, str | None]]:
    """Every key and entry of a file: keys from the top, line, and the text of a plain value."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return
    yield from _inside(root, list(above))


def _inside(node: yaml.Node | None, keys: list[str]) -> Iterator[tuple[list[str], int, str | None]]:
    children: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, item) for key, item in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(f"[{i}]", item, item) for i, item in enumerate(node.value)]
    for name, start, item in children:
        inner = [*keys, name]
        yield inner, start.start_mark.line + 1, _text(item)
        yield from _inside(item, inner)


def _text(node: yaml.Node) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def _plain(keys: Sequence[str]) -> list[str]:
    """Keys as errors name them; a dotted key is as good as a nested one."""
    parts = [part for key in keys for part in key.split(".")]
    return [p for p in parts if p not in _UNSAID and not p.startswith("[")]


def _dotted(keys: Sequence[str]) -> str:
    return ".".join(keys).replace(".[", "[")
