"""OptionParser: jsonargparse's parser, which says in one sentence what is wrong."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from musicinfuser.errors import UserError
from musicinfuser.label_files import read_yaml
from musicinfuser.parse_errors import Explainer
from musicinfuser.yaml_places import Source

_files: list[Source] = []
"""Configs of the command line that is parsed; commands have parsers of their own."""
_arguments: list[str] = []


class OptionParser(ArgumentParser):
    """Names key and place of a mistake; takes no shortened options and no key twice.

    Attributes:
        files: Further YAML files whose content is parsed, each with the keys above it.
    """

    _is_parsing = False
    _inner_parser = False
    """Set by jsonargparse on the parsers of nested classes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As jsonargparse's, without abbreviations: a typo must not become another option."""
        super().__init__(*args, **kwargs | {"allow_abbrev": False})
        self.files: list[Source] = []

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As jsonargparse's."""
        if self._inner_parser and args is not None:
            # jsonargparse passes null on to nested classes as the text None.
            args = [f"{a[:-4]}null" if a.endswith("=None") else a for a in args]
        if OptionParser._is_parsing:  # a command, or a nested class
            return super().parse_args(args, *more, **kwargs)
        _files.clear()
        _arguments[:] = sys.argv[1:] if args is None else args
        OptionParser._is_parsing = True
        try:
            return super().parse_args(args, *more, **kwargs)
        finally:
            OptionParser._is_parsing = False

    def parse_path(self, path: str | os.PathLike, *more: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, after a look for keys that stand twice."""
        _files.append((Path(path), ()))
        try:
            read_yaml(Path(path))
        except UserError as error:
            self.error(str(error), error)
        return super().parse_path(path, *more, **kwargs)

    def validate(self, namespace: Namespace, *more: Any, **kwargs: Any) -> None:
        """As jsonargparse's, which lets a single value pass for a whole group."""
        for group in self.groups or ():
            value = namespace.get(group)
            if value is not None and not isinstance(value, Namespace | dict):
                kind = "Expected a <class 'dict'>. Got value: "
                raise TypeError(f'Parser key "{group}":\n  {kind}{value}')
        super().validate(namespace, *more, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with code 2 and one sentence; raise it where ``exit_on_error`` is off."""
        if self._inner_parser:
            super().error(message, ex)
        explainer = Explainer(self, [*self.files, *_files], _arguments)
        sentence = message if isinstance(ex, UserError) else explainer.explained(message)
        if not self.exit_on_error:
            super().error(sentence, ex)
        self.exit(2, f"{self.prog.split()[0]}: {sentence}\n")
