"""OptionParser: jsonargparse's parser, which says in one sentence what is wrong.

jsonargparse reports a mistake as a tree of every type that it tried. `Explainer` follows that tree
to the one branch that matters; `musicinfuser.yaml_places` finds where the key was written.
"""

import argparse
import difflib
import importlib
import itertools
import os
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from musicinfuser.errors import UserError
from musicinfuser.label_files import read_yaml
from musicinfuser.moved_names import MOVED_KEYS, RENAMED_KEYS, new_name
from musicinfuser.yaml_places import Source, find

ROOMS = (
    "lightning_modules", "datamodules", "callbacks", "dance_eval", "small_world", "musicinfuser",
    "lightning",
)  # fmt: skip
OPTIONAL = {
    "bitsandbytes": "bitsandbytes>=0.50,<0.51",
    "came_pytorch": "came-pytorch==0.1.3",
    "prodigyopt": "prodigyopt>=1.1.2,<2",
    "schedulefree": "schedulefree>=1.4.1,<2",
    "torchao": "torchao>=0.18,<0.19",
}
"""Packages of optimizers that were run here, with the versions."""
SUBCLASS_KEYS = ("class_path", "init_args")
MAX_LISTED = 12
MAX_LENGTH = 300
TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
    "list": "a list", "dict": "a group of keys with values", "NoneType": "null",
    "collections.abc.Sequence": "a list",
}  # fmt: skip


_files: list[Source] = []
"""Configs of the command line that is parsed; commands have parsers of their own."""
_arguments: list[str] = []


class OptionParser(ArgumentParser):
    """Names key and place of a mistake; takes no shortened options and no key twice.

    Attributes:
        files: Further YAML files whose content is parsed, each with the keys above it.
    """

    _is_parsing = False
    _inner_parser = False  # set by jsonargparse on the parsers of nested classes

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


@dataclass
class Mistake:
    """The branch of jsonargparse's tree that matters, and what was wrong there."""

    path: list[str] = field(default_factory=list)
    """Keys from the top; ``init_args`` and positions in lists are left out."""
    owner: str | None = None
    """Class path of the innermost class whose arguments were read."""
    text: str = ""


@dataclass(frozen=True)
class Explainer:
    """Puts what jsonargparse says into one sentence.

    Attributes:
        parser: What was parsed with.
        files: YAML files that were read, each with the keys under which its content stands; where
            several have a key, the last one counts.
        arguments: The command line.
    """

    parser: ArgumentParser | argparse.ArgumentParser
    files: Sequence[Source] = ()
    arguments: Sequence[str] = ()

    def explained(self, message: str) -> str:
        """``place: key: what is wrong; what to do.``; without a place where none is known."""
        mistake = _follow(message)
        text, last_file = mistake.text, f"{self.files[-1][0]}: " if self.files else ""
        no_key = r"(?m)(?:Option|Key|Sub.* does not accept option) '(.+?)'(?: is not accepted|$)"
        if found := re.match(no_key, text):
            return self._unknown(mistake, found[1])
        if found := re.match(r"Group '(.+?)' does not accept option '(.+?)'", text):
            return self._unknown(mistake, f"{found[1]}.{found[2]}")
        if found := re.match(r"unrecognized arguments: (\S+)", text):
            if not found[1].startswith("--"):
                return f"{found[1]} is no option; options begin with -- and follow the command."
            return self._unknown(mistake, found[1].lstrip("-").partition("=")[0])
        if "Problems parsing config" in text:
            reason = re.sub(r"in \".*?\", line \d+, column \d+:?", "", text.partition(":")[2])
            return f"{last_file}cannot be read as YAML ({_shortened(' '.join(reason.split()))})."
        if text.startswith("Unexpected config"):
            return f"{last_file}is no config; it must hold keys with values, `key: value`."
        if found := re.match(r'expected "[\w.]+" to be one of \{(.+)\}, but it was not', text):
            # jsonargparse leaves some out of a long list.
            action = getattr(self.parser, "_subcommands_action", None)
            names = action.choices if action else found[1].split(",")
            return f"no command is given; name one of {', '.join(names)}."
        if found := re.match(r"Interpolation key '.+' not found \(resolved to '(.+)'\)", text):
            known = nearest(found[1], self._names(None))
            return f"{self._place(mistake.path)}${{{found[1]}}} names no key{known}"
        choice = r"argument (\S+): invalid choice: '(.+?)' \(choose from (.+)\)"
        if found := re.match(choice, text):
            choices = re.findall(r"[\w-]+", found[3])
            hint = nearest(found[2], choices)
            if found[1] == "command" and "did you mean" in hint:
                hint += f" Commands are {', '.join(choices)}."
            return f"{found[2]} is no {found[1]}{hint}"
        if text.startswith("Not a valid subclass of") or text.endswith("is abstract"):
            return self._no_class(mistake)
        missing = re.search(r"No module named '(\w+)", text)
        if missing and (pinned := OPTIONAL.get(missing[1])):
            place = self._place(mistake.path)
            return f"{place}{missing[1]} is not installed; pip install '{pinned}'."
        class_path, reason = _class_problem(mistake)
        if class_path is not None:
            owner = mistake.owner
            if any(class_path in argument for argument in self.arguments):
                owner = class_path
            return f"{self._place(mistake.path, owner or class_path)}{class_path} {reason}"
        if found := re.match(r"the following arguments are required: (.+)", text):
            place = self._place(mistake.path, mistake.owner) if mistake.path else ""
            of = f" of {mistake.owner}" if mistake.owner else ""
            above = [*(self.files[-1][1] if self.files else ()), *self.arguments]
            names = ", ".join(_without(above, name) for name in found[1].split(", "))
            return f"{place or last_file}{names}{of} must be given."
        other_kind = r"Import path (\S+) does not correspond to a subclass of (\S+)"
        if found := re.match(other_kind, text):
            place = self._place(mistake.path, found[1])
            return f"{place}{found[1]} is no {found[2].rstrip('.')}; name one."
        return self._wrong_value(mistake)

    def _place(self, path: Sequence[str], value: str | None = None) -> str:
        return find(path, self.files, self.arguments, value=value)

    def _unknown(self, mistake: Mistake, key: str) -> str:
        """An unknown key: up to the first of its parts that is unknown."""
        known = self._names(mistake.owner)
        parts, inside = key.split("."), ""
        for i, part in enumerate(parts):
            children = {n[len(inside) :].partition(".")[0] for n in known if n.startswith(inside)}
            if part not in children or i == len(parts) - 1:
                place = self._place([*mistake.path, *parts[: i + 1]]).removesuffix(": ")
                named = place if place.endswith(part) else f"{place}: {part}"
                above = next((key for key in reversed(mistake.path) if key != "init_args"), "")
                if moved := MOVED_KEYS.get(f"{above}.{part}"):
                    return f"{named} is called {moved} now."
                renamed = RENAMED_KEYS.get(part, "")
                if renamed.partition(".")[0] in children:
                    return f"{named} is called {renamed} now."
                owner = pkgutil.resolve_name(mistake.owner) if mistake.owner else None
                if moved := getattr(owner, "moved_options", {}).get(part):
                    return f"{named} is not known; {moved}."
                if part in SUBCLASS_KEYS:
                    return f"{named} does not stand beside options; put these under init_args."
                children |= set(SUBCLASS_KEYS) if mistake.owner and not inside else set()
                return f"{named} is not known{nearest(part, children - {part})}"
            inside += f"{part}."
        raise AssertionError(key)

    def _names(self, owner: str | None) -> set[str]:
        """Dotted names of the options of a class, or of the command line."""
        parser: Any = self.parser
        given: set[str] = set()
        if owner is not None:
            parser = ArgumentParser(exit_on_error=False)
            kind = "class" if isinstance(made := pkgutil.resolve_name(owner), type) else "function"
            getattr(parser, f"add_{kind}_arguments")(made, fail_untyped=False)
            # What the program gives to optimizers and their schedules.
            if {"Optimizer", "LRScheduler"} & {k.__name__ for k in getattr(made, "__mro__", ())}:
                given = {"params", "optimizer"}
        for command in self.arguments if owner is None else ():
            commands = getattr(parser._subcommands_action, "_name_parser_map", {})
            parser = commands.get(command, parser)
        names = {action.dest for action in parser._actions if action.option_strings}
        return {name for name in names if name.rpartition(".")[2] != "help"} - given

    def _no_class(self, mistake: Mistake) -> str:
        """A group that should name a class, and has other keys."""
        found = re.search(r"Got value: (.*)", mistake.text)
        keys = re.findall(r"'(\w+)': ", found[1])[:1] if found else []
        place = self._place([*mistake.path, *keys])
        if keys and keys[0] not in SUBCLASS_KEYS:
            return f"{place}{keys[0]} is not known there{nearest(keys[0], SUBCLASS_KEYS)}"
        if keys or not found or found[1].startswith(("{", "Namespace")):
            return f"{place}it names no class; give class_path, and init_args if it takes any."
        return f"{place}{found[1]} does not fit; give {TYPES['dict']}."

    def _wrong_value(self, mistake: Mistake) -> str:
        expected, given = [], None
        lines = mistake.text.splitlines()
        for line in lines:
            kinds = r"(?:Expected an? (.+?)|Not a valid subclass of .+?)(?:\. Got value: (.*))?$"
            if found := re.match(kinds, line):
                expected.append(_type_text(found[1] or "dict"))
                given = found[2] or given
            elif re.match(r"'(\w+)' object has no attribute 'keys'", line):
                expected.append(TYPES["dict"])
        place = self._place(mistake.path, given)
        if expected and len(expected) == len(lines):
            value = "" if given is None else f"{_shortened(given)} does not fit; "
            return f"{place}{value}give {' or '.join(dict.fromkeys(expected))}."
        return f"{place}{_shortened(' '.join(mistake.text.split())).rstrip('.')}."


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or a list of what is known, or nothing."""
    known = sorted(set(known))
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"; did you mean {close[0]}?"
    if not known:
        return "; take it out."
    more = ", ..." * (len(known) > MAX_LISTED)
    return f"; known are {', '.join(known[:MAX_LISTED])}{more}."


def _follow(text: str, mistake: Mistake | None = None) -> Mistake:
    mistake = Mistake() if mistake is None else mistake
    no_path = "- Expected a path but"
    lines = [x for x in text.splitlines() if x.strip() and not x.lstrip().startswith(no_path)]
    head, rest = (lines[0].strip().removeprefix("- "), lines[1:]) if lines else ("", [])
    if found := re.match(r'Parser key "(.+?)"(?: element \d+)?:\s*(.*)', head):
        keys = found[1].split(".")
        mistake.path += keys if mistake.path[-len(keys) :] != keys else []
        return _follow("\n".join([*filter(None, [found[2]]), *rest]), mistake)
    if found := re.match(r"Problem with given class_path '(.+)':", head):
        mistake.owner = found[1]
        return _follow("\n".join(rest), mistake)
    if found := re.match(r"Unable to load config ['\"]?(.*?)['\"]?$", head):
        unfit = f"Expected a <class 'dict'>. Got value: {found[1]}"
        return _follow("\n".join(rest) or unfit, mistake)
    if found := re.match(r"Type .* expects a function or a callable class: (.*)", head):
        inside, _, value = "\n".join([found[1], *rest]).partition(". Got value: ")
        if named := re.search(r"class_path='(.+?)'", value):
            mistake.owner = named[1]
        return _follow(inside, mistake)
    if head.startswith("Does not validate against any"):
        followed = [branch for branch in _branches(rest) if "'NoneType'" not in branch.text]
        if deep := next((branch for branch in followed if branch.owner or branch.path), None):
            return Mistake([*mistake.path, *deep.path], deep.owner or mistake.owner, deep.text)
        if followed:
            # What one of the types says of it is no more true than what another says.
            given = next((line.strip() for line in rest if "Given value: " in line), "")
            given = given.replace("Given value: ", ". Got value: ")
            first = followed[0].text.splitlines()[0]
            if first.startswith("the following arguments"):
                named = re.search(r"class_path='(.+?)'", given)
                return Mistake(mistake.path, named[1] if named else mistake.owner, first)
            texts = (branch.text.splitlines()[0] for branch in followed)
            mistake.text = "\n".join(t if "Got value: " in t else t + given for t in texts)
            return mistake
    mistake.text = "\n".join([head, *rest])
    return mistake


def _branches(lines: Sequence[str]) -> list[Mistake]:
    """The entries under ``Errors:``."""

    def depth(line: str) -> int:
        return len(line) - len(line.lstrip())

    after = list(itertools.dropwhile(lambda line: line.strip() != "Errors:", lines))
    inside = itertools.takewhile(lambda line: depth(line) > depth(after[0]), after[1:])
    entries = re.split(r"^- ", textwrap.dedent("\n".join(inside)), flags=re.MULTILINE)
    return [_follow(entry) for entry in entries[1:]]


def _class_problem(mistake: Mistake) -> tuple[str | None, str]:
    """A class path that names nothing, and why."""
    text = mistake.text
    if found := re.search(r"module '(.+?)' has no attribute '(.+?)'", text):
        path = f"{found[1]}.{found[2]}"
        if moved := new_name(mistake.owner or path):
            return mistake.owner or path, f"is called {moved} now."
        module = importlib.import_module(found[1])
        # Of a package whose classes are loaded when asked for, `dir` does not know them.
        names = {*dir(module), *getattr(module, "__all__", ())}
        kinds = [n for n in names if isinstance(getattr(module, n), type)] + _inside(module)
        return path, f"does not exist{nearest(found[2], kinds)}"
    if found := re.search(r"No module named '(.+?)'", text):
        path = mistake.owner or found[1]
        if moved := new_name(path):
            return path, f"is called {moved} now."
        above, _, name = found[1].rpartition(".")
        known = _inside(importlib.import_module(above)) if above else ROOMS
        return path, f"does not exist: no module {name}{nearest(name, known)}"
    dot_path = r"Expected a dot import path string: (\S+?)(?:\.? Got value: .*)?$"
    found = re.search(dot_path, text, re.MULTILINE)
    if found and all("dot import path" in line for line in text.splitlines()):
        return found[1], "is no class path; write module.Class, such as callbacks.AdapterEMA."
    return None, ""


def _inside(module: ModuleType) -> list[str]:
    """Modules of a package."""
    return [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ()))]


def _type_text(name: str) -> str:
    """A type as it is written in Python, in words."""
    if choices := re.match(r"typing\.Literal\[(.+)\]", name):
        return f"one of {choices[1].replace(chr(39), '')}"
    plain = re.sub(r"<class '(.+?)'>", r"\1", name)
    if plain.startswith("dot import path"):
        return TYPES["dict"]
    if number := re.match(r"tuple with (\d+) elements", plain):
        return f"a list of {number[1]} values"
    return TYPES.get(plain, plain if " " in plain else f"a value of type {plain}")


def _without(above: Sequence[str], name: str) -> str:
    """A name without the commands, or the keys above a file's content, that it begins with."""
    first, _, rest = name.partition(".")
    return _without(above, rest) if rest and first in above else name


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} ..."
