"""What is in a cache: ``python -m datamodules.report CACHE --out FOLDER``.

Writes counts and a page of thumbnails. Nothing is encoded; pictures come from the videos, where
they are still in place. The encode job does the same into ``CACHE/report``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.cache_report import PICTURES_PER_GROUP, write_report
from musicinfuser.errors import UserError, in_one_sentence


def main(args: Sequence[str] | None = None) -> int:
    """Read the command line and write the report; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.report",
        description="Counts and thumbnails of a cache of encoded clips.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("cache", metavar="CACHE", help="folder the encode job wrote")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--pictures-per-group",
        type=int,
        default=PICTURES_PER_GROUP,
        help="of each source, genre, camera and split, and of each reason for leaving out",
    )
    parser.add_argument("--all", action="store_true", help="show every clip")
    options = parser.parse_args(args)
    number = None if options.all else options.pictures_per_group
    try:
        print(write_report(options.cache, options.out, pictures_per_group=number), end="")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nwith thumbnails: {Path(options.out, 'index.html')}")
    return 0


if __name__ == "__main__":
    with in_one_sentence("report"):
        sys.exit(main())
