"""The base class of errors that are meant for users."""

import unicodedata
from pathlib import Path


class UserError(ValueError):
    """Something that the user can mend: one sentence that says what is wrong, where, what to do.

    The programs print its text alone. Every other exception is a fault of this program, also a
    `ValueError`, and keeps its traceback. It is a `ValueError` so that callers from Python, and
    parsers that take a `ValueError` for "this value does not fit", see an ordinary one.
    """


def user_error(error: BaseException | None) -> UserError | None:
    """The first `UserError` among an error and what it was raised from.

    Libraries wrap what a constructor raises into errors of their own: jsonargparse into pages about
    types.
    """
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None


def printable(text: str | Path) -> str:
    """A text on one line that every UTF-8 file and terminal takes.

    Names of files may hold line breaks and bytes that are no Unicode; these come out escaped.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in str(text)
    )
