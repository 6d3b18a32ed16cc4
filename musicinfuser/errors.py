"""The base class of errors that are meant for users, and the error of a disk that is full."""

import errno
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


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
    chain = list(links(error))
    if found := next((link for link in chain if isinstance(link, UserError)), None):
        return found
    # Libraries write files of their own, such as logs.
    full = (link for link in chain if isinstance(link, OSError) and link.errno in _FULL)
    return next((write_error(link, link.filename or "a file") for link in full), None)


def links(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from, each once: one raised again can stand below itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class WriteError(UserError, OSError):
    """A file cannot be written: the disk or the user's share of it is full, or it is read-only.

    It is about the place, not about what was to be written: a batch must not go on to the next.
    """

    def __str__(self) -> str:
        """The sentence; an `OSError` with a number would say its own."""
        return str(self.args[0])


def write_error(error: BaseException, path: str | Path) -> WriteError | None:
    """What a failure to write a file means for the user; None if it is about something else.

    Args:
        error: What was raised while ``path`` was written. Libraries put the system's error into
            one of their own, or into its text.
        path: The file or folder.
    """
    for link in links(error):
        in_text = re.search(r"\(os error (\d+)\)", str(link))
        code = int(in_text[1]) if in_text else getattr(link, "errno", None)
        # The path, a file beside it, a folder above it, or no file at all.
        place = Path(os.fsdecode(getattr(link, "filename", None) or path))
        is_about = place in Path(path).parents or place.parent == Path(path).parent
        if code in _FULL or code in _REFUSED and is_about:
            what = "make room" if code in _FULL else "name a folder that can be written to"
            reason = os.strerror(code)
            found = WriteError(
                f"{printable(path)}: cannot be written ({reason}); {what}, then repeat the command."
            )
            found.errno, found.strerror = code, reason
            return found
    return None


def looked_for(path: str | Path) -> str:
    """Where a path that is not there was looked for, for after it; nothing if it says so itself."""
    if Path(path).is_absolute():
        return ""
    return (
        f" (looked for in {Path.cwd()}, where the command runs; give the whole path, or run it in "
        "the folder where this path starts)"
    )


@contextmanager
def in_one_sentence(program: str, *, goes_on: bool = False) -> Iterator[None]:
    """End a program with exit code 1 and one sentence where its user can mend what is wrong.

    Interrupted from the keyboard, it ends with exit code 130 and a sentence, too.

    Args:
        program: Its name.
        goes_on: Whether the same command goes on where it was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        advice = "; repeat the command to go on" if goes_on else ""
        print(f"{program}: stopped{advice}.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        found: Any = user_error(error) if isinstance(error, UserError | OSError) else None
        if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
            place = printable(error.filename)
            found = f"{place}: {error.strerror}; name a place that you may use."
        if found is None:
            raise
        sys.exit(f"{program}: {found}")


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
