"""Fetching a video in parts that belong together, and only what is a video."""

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from musicinfuser.atomic_files import named_write_errors, write_text
from musicinfuser.errors import UserError, WriteError
from musicinfuser.label_files import LabelError, read_json

NUM_TRIES = 4
CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
WRONG_RANGE, TOO_MANY = 416, 429
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"moof", b"uuid"}
"""Kinds of boxes that mp4 and QuickTime files are made of."""


class FetchError(UserError):
    """A list cannot be read, or a video cannot be fetched."""


def is_mp4(path: Path) -> bool:
    """Whether a file begins as an mp4 or QuickTime file does: with a box of a known kind."""
    with path.open("rb") as file:
        return file.read(8)[4:] in BOXES


def is_known(url: str, path: Path) -> bool:
    """Whether a video is there, came from a place, and still has its number of bytes there."""
    if not path.is_file() or not is_mp4(path):
        return False
    known = _noted(path)
    return known.get("url") == url and known.get("num_bytes") in (path.stat().st_size, None)


def compare(url: str, path: Path) -> None:
    """Refuse a file that another ``--size`` gave, or another version of the video.

    Raises:
        FetchError: It came from another place, or has not the server's number of bytes.
    """
    known, num_bytes = _noted(path).get("url"), path.stat().st_size
    what = f"is there already, but came from {known}, not from {url}"
    if known in (None, url):
        try:
            with _opened(url) as response:
                origin = _origin(url, response)
        except (OSError, http.client.HTTPException):
            return  # nothing is known against it
        if origin["num_bytes"] in (num_bytes, None):
            _note(path, origin)
            return
        what = f"is there already with {num_bytes} bytes, the server's has {origin['num_bytes']}"
    raise FetchError(f"{what}; delete {path}, or give another --out.")


def fetch_file(url: str, path: Path, *, pause_seconds: float) -> None:
    """Fetch a file in as many tries as it takes, each from where the last one stopped."""
    part = path.with_name(f".{path.name}.part")
    reason = ""
    for attempt in range(NUM_TRIES):
        if attempt:
            time.sleep(pause_seconds * 2**attempt)
        try:
            if _continue(url, part, path):
                if not is_mp4(part):
                    part.unlink()
                    raise FetchError("what the server sent is no mp4 file; nothing of it is kept.")
                part.replace(path)
                return
            reason = f"the connection broke off after {_size(part)} bytes"
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            error.close()
            if error.code == WRONG_RANGE:
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code != TOO_MANY:
                break
        except WriteError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = f"the connection failed ({error or type(error).__name__})"
    raise FetchError(f"{reason}.")


def _continue(url: str, part: Path, path: Path) -> bool:
    """Add to a part of a file what the server has beyond it; whether it is complete now.

    A part is continued only if it is of the same file: the same place and size and, where the
    server names one, the same version.
    """
    known = _noted(path)
    start = _size(part) if known.get("url") == url else 0
    if start and start == known.get("num_bytes"):
        return True
    with _opened(url, start=start, version=known.get("version")) as response:
        kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
        if kind.endswith(("html", "json", "xml")):
            raise FetchError(f"the server sent a page ({kind}) in place of the video.")
        origin = _origin(url, response, start=start)
        # A server without ranges, or with another file by now, sends the file from its start.
        is_rest = response.status == http.client.PARTIAL_CONTENT
        if is_rest and (origin != known or not start):
            part.unlink(missing_ok=True)
            return False
        with named_write_errors(part):
            if not is_rest:
                part.unlink(missing_ok=True)
                _note(path, origin)
            with part.open("ab") as file:
                shutil.copyfileobj(response, file, CHUNK_BYTES)
        if origin["num_bytes"] is not None:
            return _size(part) == origin["num_bytes"]
        # What comes in pieces ends with an empty one; else only the boxes tell the end.
        return response.chunked or not _is_cut_off(part)


def _opened(url: str, *, start: int = 0, version: Any = None) -> http.client.HTTPResponse:
    request = urllib.request.Request(url)
    if start:
        request.add_header("Range", f"bytes={start}-")
        if isinstance(version, str) and not version.startswith("W/"):
            request.add_header("If-Range", version)
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


def _origin(url: str, response: http.client.HTTPResponse, *, start: int = 0) -> dict[str, Any]:
    """Which file a server sends: its place, its number of bytes and its version, if it says."""
    headers = response.headers
    length, said = headers["Content-Length"] or "", headers["Content-Range"] or ""
    num_bytes = int(length) if length.isascii() and length.isdigit() else None
    if response.status == http.client.PARTIAL_CONTENT:
        place = CONTENT_RANGE.fullmatch(said.strip())
        if place is not None:
            is_rest = place[1] == str(start) and place[2] != "*"
            num_bytes = int(place[2]) if is_rest else None
        elif num_bytes is not None:
            num_bytes += start
    version = headers["ETag"] or headers["Last-Modified"]
    return {"url": url, "num_bytes": num_bytes, "version": version}


def _note(path: Path, origin: dict[str, Any]) -> None:
    """Keep where a video, or the part of it that is there, comes from."""
    write_text(path.with_name(f".{path.name}.origin.json"), json.dumps(origin) + "\n")


def _noted(path: Path) -> dict[str, Any]:
    with suppress(LabelError):
        return read_json(path.with_name(f".{path.name}.origin.json"))
    return {}


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _is_cut_off(path: Path) -> bool:
    """Whether an mp4 file ends within one of its boxes, or before the one that describes it."""
    kinds, end, size = set(), 0, _size(path)
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            header = file.read(16)
            kind, length = header[4:8], int.from_bytes(header[:4])
            if length == 1:
                length = int.from_bytes(header[8:])
            if kind not in BOXES or length < 8:
                return len(header) < 8  # of an unknown kind, or up to the end
            kinds.add(kind)
            end += length
    return end > size or b"moov" not in kinds
