"""Fetching AIST videos from the database's own server, after its terms are accepted.

``python -m datamodules.fetch_aist --names LIST --out FOLDER --accept-terms`` fetches what a list
names and `AISTDataset` reads. The list has one name per line, as AIST++ publishes it
(``video_list.txt``, https://google.github.io/aistplusplus_dataset). Videos are fetched one after
another; run the command again to go on where it stopped.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.aist_names import ALL_CAMERAS, parse_name, tables
from datamodules.downloading import FetchError, compare, fetch_file, is_known, is_mp4
from musicinfuser.atomic_files import named_write_errors
from musicinfuser.errors import in_one_sentence
from musicinfuser.label_files import LabelError, read_lines

TERMS_URL = "https://aistdancedb.ongaaccel.jp/terms_of_use/"
VIDEO_URL = "https://aistdancedb.ongaaccel.jp/v1.0.0/video"
SIZES = ("10M", "2M")
TERMS = (
    f"The videos may be used under the terms of the AIST Dance Video Database: {TERMS_URL}\n"
    "Read them; if you accept them, run this again with --accept-terms. Nothing was fetched."
)


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
        cameras: Such as ``c01``; None for all, as for the next two.
        situations: Such as ``BM``.
        genres: Such as ``BR``. Showcases, cyphers and battles name none.

    Raises:
        LabelError: No such file, no text, or a line that is no video's name.
        FetchError: An unknown code, or nothing left.
    """
    known = tables()
    choices = (
        ("camera", cameras, known.cameras),
        ("situation", situations, known.situations),
        ("genre", genres, known.genres),
    )
    for part, codes, all_codes in choices:
        if unknown := sorted(set(codes or ()) - set(all_codes)):
            raise FetchError(f"--{part}s names {unknown[0]}; known are {', '.join(all_codes)}.")
    chosen = []
    for number, line in read_lines(path):
        name = parse_name(line)
        if name is None or name.camera == ALL_CAMERAS:
            raise LabelError(
                path,
                f"{line!r} is not the name of an AIST video, such as gBR_sBM_c01_d04_mBR0_ch01.",
                number,
            )
        if all(codes is None or getattr(name, part) in codes for part, codes, _ in choices):
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
    """Fetch videos one after another; a file gets its name when it is complete.

    Args:
        names: Names without ending.
        folder: Where ``<name>.mp4`` go. Beside each, under names that start with a dot, lie a part
            of a file and where it comes from.
        url: Where the server keeps them.
        pause_seconds: Between requests, so as not to burden the server.
        say: Takes a line per video.

    Raises:
        WriteError: The disk is full, or may not be written to.
    """
    folder, names, done = Path(folder), list(names), Fetched()
    with named_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    has_asked = False
    for number, name in enumerate(names, start=1):
        path, origin = folder / f"{name}.mp4", f"{url}/{name}.mp4"
        if is_known(origin, path):
            done.there_already.append(name)
            continue
        if has_asked:
            time.sleep(pause_seconds)
        has_asked = True
        try:
            if path.is_file() and is_mp4(path):
                compare(origin, path)
                done.there_already.append(name)
                continue
            if path.is_file():
                say(f"{number}/{len(names)} {name}: what is there is no mp4 file; fetched again")
            fetch_file(origin, path, pause_seconds=pause_seconds)
        except FetchError as error:
            done.failed[name] = str(error)
            say(f"{number}/{len(names)} {name}: {error}")
            continue
        done.new.append(name)
        say(f"{number}/{len(names)} {name}: {path.stat().st_size / 1e6:.1f} MB")
    return done


def main(arguments: Sequence[str] | None = None, *, url: str = VIDEO_URL) -> int:
    """Fetch what a list names; the exit code is 0 if all of it is there.

    Raises:
        UserError: As `read_names` and `fetch`.
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
    choice = {name: getattr(options, name) for name in ("cameras", "situations", "genres")}
    done = fetch(
        read_names(options.names, **choice),
        options.out,
        url=f"{url}/{options.size}",
        pause_seconds=options.pause_seconds,
    )
    print(
        f"{len(done.new)} fetched, {len(done.there_already)} there already, "
        f"{len(done.failed)} failed"
    )
    for name, reason in done.failed.items():
        print(f"  {name}: {reason}")
    return 1 if done.failed else 0


if __name__ == "__main__":
    with in_one_sentence("fetch_aist", goes_on=True):
        sys.exit(main())
