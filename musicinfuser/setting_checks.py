"""The checks of settings that many places need, with one wording."""

import math
import operator
from collections.abc import Collection
from pathlib import Path

from musicinfuser.errors import UserError, looked_for

_LIMITS = {
    "above": operator.gt,
    "at_least": operator.ge,
    "below": operator.lt,
    "at_most": operator.le,
}


def check_number(
    name: str,
    value: float | None,
    *,
    hint: str = "",
    may_be_infinite: bool = False,
    **limits: float,
) -> None:
    """Refuse a number out of its range; None passes.

    Args:
        name: The setting, as it is written in a config.
        value: What was given.
        hint: What else to say of it, from the blank or comma on.
        may_be_infinite: Whether infinity is a value of it.
        limits: Any of ``above``, ``at_least``, ``below`` and ``at_most``.

    Raises:
        UserError: With the setting, the number and the range.
    """
    is_finite = value is None or math.isfinite(value) or may_be_infinite
    if value is None or (
        is_finite and all(_LIMITS[word](value, limit) for word, limit in limits.items())
    ):
        return
    if not is_finite:
        raise UserError(f"{name} is {value}; it must be a finite number{hint}.")
    wanted = " and ".join(f"{word.replace('_', ' ')} {end:g}" for word, end in limits.items())
    raise UserError(f"{name} is {value}; it must be {wanted}{hint}.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a text that is none of several.

    Raises:
        UserError: With the setting, the text and the choices.
    """
    if value not in choices:
        raise UserError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}.")


def check_file(
    name: str, path: str | Path, *, hint: str = "", error: type[UserError] = UserError
) -> None:
    """Refuse a file that is not there.

    Raises:
        UserError: ``error``, with the setting, the path, the hint, and where it was looked for.
    """
    if (problem := file_problem(name, path, hint=hint)) is not None:
        raise error(problem)


def file_problem(name: str, path: str | Path, *, hint: str = "") -> str | None:
    """What `check_file` refuses, in a sentence; None of a file that is there."""
    if Path(path).is_file():
        return None
    if Path(path).is_dir():
        return f"{name} names {path}, which is a folder, not a file{hint}."
    return f"{name} names {path}, which does not exist{hint}{looked_for(path)}."
