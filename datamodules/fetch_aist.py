"""Fetching AIST videos from the database's own server, after its terms are accepted.

``python -m datamodules.fetch_aist --names LIST --out FOLDER --accept-terms`` fetches what a list
names and `AISTDataset` reads. The list has one name per line, as AIST++ publishes it
(``video_list.txt``, https://google.github.io/aistplusplus_dataset). Videos are fetched one after
another; run the command again to go on where it stopped.
"""

import argparse
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.aist_names import ALL_CAMERAS, parse_name, tables
from musicinfuser.errors import UserError
from musicinfuser.label_files import read_lines

TERMS_URL = "https://aistdancedb.ongaaccel.jp/terms_of_use/"
VIDEO_URL = "https://aistdancedb.ongaaccel.jp/v1.0.0/video"
SIZES = ("10M", "2M")
NUM_TRIES = 4
CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
NOT_THERE, WRONG_RANGE, TOO_MANY = 404, 416, 429
TERMS = (
    f"The videos may be used under the terms of the AIST Dance Video Database: {TERMS_URL}\n"
    "Read them; if you accept them, run this again with --accept-terms. Nothing was fetched."
)


class FetchError(UserError):
    """A list cannot be read, or a video cannot be fetched."""


@dataclass
class Fetched:
    """What became of a list of names."""

    new: list[str] = field(default_factory=list)
    there_already: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by name."""


def read_names(
    path: str | Path,
    *,
    cameras: Sequence[str] | None = None,
    situations: Sequence[str] | None = None,
    genres: Sequence[str] | None = None,
) -> list[str]:
    """The names of a list that are chosen, in its order, each once.

    Args:
        path: A text file with one name per line, with or without ``.mp4``.
        cameras: Such as ``c01``; None for all.
        situations: Such as ``BM``; None for all.
        genres: Such as ``BR``; None for all. Showcases, cyphers and battles name none.

    Raises:
        LabelError: No such file, or no text.
        FetchError: A line that is no video's name, an unknown code, or nothing left.
    """
    known = tables()
    for option, codes, all_codes in (
        ("cameras", cameras, known.cameras),
        ("situations", situations, known.situations),
        ("genres", genres, known.genres),
    ):
        unknown = sorted(set(codes or ()) - set(all_codes))
        if unknown:
            raise FetchError(f"--{option} names {unknown[0]}; known are {', '.join(all_codes)}.")
    chosen = []
    for number, line in read_lines(path):
        name = parse_name(line)
        if name is None or name.camera == ALL_CAMERAS:
            raise FetchError(
                f"{path}, line {number}: {line!r} is not the name of an AIST video, such as"
                " gBR_sBM_c01_d04_mBR0_ch01."
            )
        if (
            (cameras is None or name.camera in cameras)
            and (situations is None or name.situation in situations)
            and (genres is None or name.genre in genres)
        ):
            chosen.append(str(name))
    if not chosen:
        raise FetchError(f"{path} names no video that is chosen; widen the choice.")
    return list(dict.fromkeys(chosen))


def fetch(
    names: Iterable[str],
    folder: str | Path,
    *,
    url: str = f"{VIDEO_URL}/{SIZES[0]}",
    pause_seconds: float = 1.0,
    say: Callable[[str], None] = print,
) -> Fetched:
    """Fetch videos one after another; a file has its name only when it is whole.

    Args:
        names: Names without ending.
        folder: Where ``<name>.mp4`` go. A part of a file waits under a name that starts with a dot.
        url: Where the server keeps them.
        pause_seconds: Between requests, so as not to burden the server.
        say: Takes a line per video.
    """
    folder, names, done = Path(folder), list(names), Fetched()
    folder.mkdir(parents=True, exist_ok=True)
    has_asked = False
    for number, name in enumerate(names, start=1):
        path = folder / f"{name}.mp4"
        if path.is_file():
            done.there_already.append(name)
            continue
        if has_asked:
            time.sleep(pause_seconds)
        has_asked = True
        try:
            _fetch_one(f"{url}/{name}.mp4", path, pause_seconds=pause_seconds)
        except FetchError as error:
            done.failed[name] = str(error)
            say(f"{number}/{len(names)} {name}: {error}")
            continue
        done.new.append(name)
        say(f"{number}/{len(names)} {name}: {path.stat().st_size / 1e6:.1f} MB")
    return done


def _fetch_one(url: str, path: Path, *, pause_seconds: float) -> None:
    """Fetch a file in as many tries as it takes, each from where the last one stopped."""
    part = path.with_name(f".{path.name}.part")
    reason = ""
    for attempt in range(NUM_TRIES):
        if attempt:
            time.sleep(pause_seconds * 2**attempt)
        try:
            if _continue(url, part):
                part.replace(path)
                return
            reason = f"the connection broke off after {part.stat().st_size} bytes"
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            error.close()
            if error.code == WRONG_RANGE:
                part.unlink(missing_ok=True)
            elif error.code == NOT_THERE or (error.code < 500 and error.code != TOO_MANY):
                break
        except (OSError, http.client.HTTPException) as error:
            reason = f"the connection failed ({error or type(error).__name__})"
    raise FetchError(f"{reason}.")


def _continue(url: str, part: Path) -> bool:
    """Add to a part of a file what the server has beyond it; whether it is whole now."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        # A server without ranges sends the file from its start.
        is_rest = response.status == http.client.PARTIAL_CONTENT
        length = int(response.headers["Content-Length"])
        expected = length + (start if is_rest else 0)
        with part.open("ab" if is_rest else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
    return part.stat().st_size == expected


def main(arguments: Sequence[str] | None = None, *, url: str = VIDEO_URL) -> int:
    """Fetch what a list names; the exit code is 0 if all of it is there.

    Args:
        arguments: Of the command line.
        url: Where the server keeps folders of videos by size.
    """
    parser = argparse.ArgumentParser(
        "datamodules.fetch_aist", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--names", required=True, help="a text file with one name per line")
    parser.add_argument("--out", required=True, help="folder for the videos")
    parser.add_argument("--accept-terms", action="store_true", help=f"you accept {TERMS_URL}")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="bits per second")
    parser.add_argument("--cameras", nargs="+", help="such as c01 c10; all unless given")
    parser.add_argument("--situations", nargs="+", help="such as BM FM; all unless given")
    parser.add_argument("--genres", nargs="+", help="such as BR PO; all unless given")
    parser.add_argument("--pause-seconds", type=float, default=1.0, help="between requests")
    options = parser.parse_args(arguments)
    if not options.accept_terms:
        print(TERMS)
        return 1
    try:
        names = read_names(
            options.names,
            cameras=options.cameras,
            situations=options.situations,
            genres=options.genres,
        )
    except UserError as error:
        print(f"fetch_aist: {error}", file=sys.stderr)
        return 1
    done = fetch(
        names, options.out, url=f"{url}/{options.size}", pause_seconds=options.pause_seconds
    )
    print(
        f"{len(done.new)} fetched, {len(done.there_already)} there already, "
        f"{len(done.failed)} failed"
    )
    for name, reason in done.failed.items():
        print(f"  {name}: {reason}")
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(main())
