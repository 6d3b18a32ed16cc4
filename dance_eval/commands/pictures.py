"""`evaluate.py sheet` and `evaluate.py side_by_side`: clips as pictures and as videos."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from dance_eval.commands.options import MAX_CLIPS, add_decoding_options, drawing_options
from dance_eval.loading import collect_clips, draw_sheet, write_side_by_side
from musicinfuser.atomic_files import require_writable
from musicinfuser.option_parser import OptionParser


def sheet_parser() -> ArgumentParser:
    """The options of `sheet`."""
    sheet = _parser(
        description="Draw clips, their sound and beats on one picture.",
        output=Path("contact_sheet.png"),
    )
    sheet.add_argument(
        "--pair", type=bool, default=False, help="Clips of the same music below each other."
    )
    return sheet


def side_by_side_parser() -> ArgumentParser:
    """The options of `side_by_side`."""
    return _parser(
        description="Show systems beside each other, with sound.", output=Path("side_by_side")
    )


def run_sheet(settings: Namespace) -> None:
    """Draw the sheet.

    Raises:
        EvaluationError, ClipListError: If there is nothing to draw.
    """
    entries, _ = collect_clips(settings.folders)
    require_writable(settings.output.parent, option="--output")
    options = drawing_options(settings) | {"max_clips": settings.max_clips}
    draw_sheet(entries, settings.output, pair=settings.pair, **options)


def run_side_by_side(settings: Namespace) -> None:
    """Write the videos.

    Raises:
        EvaluationError, ClipListError: If no two systems share a piece of music.
    """
    entries, _ = collect_clips(settings.folders)
    require_writable(settings.output, option="--output")
    options = drawing_options(settings) | {"max_videos": settings.max_clips}
    write_side_by_side(entries, settings.output, **options)


def _parser(*, description: str, output: Path) -> ArgumentParser:
    parser = OptionParser(description=description)
    parser.add_argument("folders", nargs="+", type=Path, help="As for `score`.")
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--max_clips", type=PositiveInt, default=MAX_CLIPS)
    add_decoding_options(parser)
    return parser
