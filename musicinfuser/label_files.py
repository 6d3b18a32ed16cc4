"""Strict readers of the text files that people write by hand: captions, lists, votes, answers.

Nothing is guessed and nothing is dropped: what is not as it must be raises a `LabelError` with
file, line and what to do.
"""

import codecs
import csv
import difflib
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from musicinfuser.errors import UserError, printable
from musicinfuser.yaml_places import compose, second_of_a_key

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
_CSV_REASONS = {
    "unexpected end of data": "the quote that is opened here is never closed",
    "field larger": "a value is too long, probably since a quote is not closed",
    "expected after": "text follows a closing quote; write a quote within a text twice",
}
Row = dict[str, str]


class LabelError(UserError):
    """A text file is not what it must be; one sentence with file, line and what to do.

    Attributes:
        path: The file.
        reason: The sentence without file and line.
        line: Counted from 1; None where it is about the whole file.
    """

    def __init__(self, path: str | Path, reason: str, line: int | None = None) -> None:
        self.path, self.reason, self.line = Path(path), printable(reason), line
        place = printable(path) if line is None else f"{printable(path)}, line {line}:"
        super().__init__(f"{place} {self.reason}")


def read_text(path: str | Path) -> str:
    """A whole text file in UTF-8, without the byte-order mark that some editors put first.

    Raises:
        LabelError: It cannot be read, or is in another encoding, which is named where it shows.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise LabelError(path, f"cannot be read ({error.strerror}).") from None
    for mark, name in _MARKS:
        if content.startswith(mark):
            raise LabelError(path, f"cannot be read as UTF-8 text: it is {name}; save it as UTF-8.")
    try:
        text = content.decode("utf-8")
        if "\0" not in text:
            return text.lstrip("\ufeff")
        place, reason = content.index(b"\0"), ": it holds zero bytes, as UTF-16 does;"
    except UnicodeDecodeError as error:
        place = error.start
        around = content[max(0, place - 10) : place + 10].decode("latin-1")
        reason = f" near {around!r}; if it is Latin-1 or Windows-1252,"
    line = content.count(b"\n", 0, place) + 1
    raise LabelError(path, f"cannot be read as UTF-8 text{reason} save it as UTF-8.", line)


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines that are not empty, stripped, each with its number.

    Raises:
        LabelError: As `read_text`.
    """
    # A mark stands in the middle where lists were joined.
    lines = enumerate((line.strip(" \t\r\ufeff") for line in read_text(path).split("\n")), start=1)
    return [(number, line) for number, line in lines if line]


def csv_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv file that are not empty, the names of its columns included.

    Blanks before a value are left out, so that ``a.mp4, "one, two"`` has two values.

    Yields:
        The number of the line a row starts in, and its values.

    Raises:
        LabelError: As `read_text`; a quote is not closed, or text follows a closing quote.
    """
    text, line = read_text(path), 1
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        reason = next((text for part, text in _CSV_REASONS.items() if part in str(error)), error)
        raise LabelError(path, f"cannot be read as csv in UTF-8: {reason}.", line) from None


def read_csv(
    path: str | Path,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    others: bool = False,
) -> list[tuple[int, Row]]:
    """The rows of a csv file whose first row names the columns.

    Args:
        path: The file, in UTF-8, with commas between values.
        required: Columns that must be there; the first one names files.
        optional: Columns that may be there.
        others: Whether further columns may be there.

    Returns:
        The number of the line each row starts in, and its values by column, stripped.

    Raises:
        LabelError: As `csv_rows`; a column that is missing, unknown or named twice, with the
            nearest known name; or a row with more or fewer values than there are columns.
    """
    rows = csv_rows(path)
    line, names = next(rows, (1, []))
    names = [name.strip() for name in names]
    known = (*required, *optional)
    unknown = [] if others else [name for name in names if name not in known]
    if unknown or not set(required) <= set(names) or len(set(names)) < len(names) or "" in names:
        near = {n: difflib.get_close_matches(n, set(known) - set(names), 1) for n in unknown}
        meant = "".join(f"; {name!r} may be {close[0]!r}" for name, close in near.items() if close)
        if len(names) == 1 and re.search(r"[;\t]", names[0]):
            meant += "; put commas between them"
        may_be = f", there may be {', '.join(optional)}" if optional else ""
        raise LabelError(
            path,
            f"names the columns {', '.join(names) or '(none)'}; there must be "
            f"{', '.join(required)}{may_be}, each once{meant}.",
            line,
        )
    found = []
    for line, values in rows:
        if len(values) != len(names):
            reason = f"has {len(values)} values for {len(names)} columns; put quotes around a text"
            raise LabelError(path, f"{reason} with commas.", line)
        found.append((line, dict(zip(names, map(str.strip, values), strict=True))))
    suffixes = {PurePath(row[required[0]]).suffix.lower() for _, row in found if required} - {""}
    any_suffix = "|".join(map(re.escape, sorted(suffixes)))
    file_name = re.compile(rf"(?:^|[,\n])[^,\n]*(?:{any_suffix})\"?(?:[,\n]|$)", re.IGNORECASE)
    for line, row in found if suffixes else ():
        # Two quotes that are not closed make one text of the rows between them.
        if any("\n" in value and file_name.search(value) for value in row.values()):
            reason = "a text goes on over the rows below, which hold names of files"
            raise LabelError(path, f"{reason}; close its quote.", line)
    return found


def parse_json(text: str, path: str | Path, *, line: int | None = None) -> Any:
    """The value of a JSON text, by the letter of the standard.

    Args:
        text: What to parse.
        path: The file it comes from, for the message.
        line: Where in the file it stands; None if it is the whole file.

    Raises:
        LabelError: No JSON, NaN or infinity, a number beyond all bounds, a key given twice, half
            of a surrogate pair, or brackets too deep.
    """
    try:
        value = json.loads(
            text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_each_once
        )
        if r"\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line, reason = line or error.lineno, f"not JSON ({error.msg})"
    except UnicodeEncodeError:
        reason = r"not text: it holds half of a surrogate pair (\ud800 to \udfff)"
    except RecursionError:
        reason = "not JSON that can be read: its brackets are too deep"
    except ValueError as error:
        reason = f"not JSON ({error})"
    raise LabelError(path, f"{'' if line else 'is '}{reason}; mend or delete it.", line)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return value


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        LabelError: As `read_text` and `parse_json`; or another value than an object.
    """
    return _json_object(read_text(path), path, None)


def _json_object(text: str, path: str | Path, line: int | None) -> dict[str, Any]:
    value = parse_json(text, path, line=line)
    if not isinstance(value, dict):
        verb = "hold" if line is None else "be"
        raise LabelError(path, f"must {verb} one JSON object, {{...}}.", line)
    return value


def read_json_lines(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object per line, each with the number of its line.

    Raises:
        LabelError: As `read_text` and `parse_json`; or another value than an object.
    """
    # Texts may hold the other line breaks of Unicode.
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, _json_object(line, path, number)) for number, line in lines if line.strip()]


def read_yaml(path: str | Path) -> Any:
    """The value that a YAML file holds; None where it is empty.

    Raises:
        LabelError: As `read_text`; no YAML, or a key that stands twice, of which one would be lost.
    """
    text, line = read_text(path), None
    try:
        root = compose(text)
        if root is None:
            return None
        if (twice := second_of_a_key(root)) is None:
            return SafeConstructor().construct_document(root)
        reason, line = f"{twice[0]} stands there a second time; keep one of the two", twice[1]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, reason = None if mark is None else mark.line + 1, error.problem or "no YAML"
    except RecursionError:
        reason = "its brackets are too deep"
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
    raise LabelError(path, f"cannot be read as YAML ({reason}).", line)
