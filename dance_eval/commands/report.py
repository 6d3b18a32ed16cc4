"""`evaluate.py report`: scores, tables, pictures and a page with all of it, in one folder."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from dance_eval.commands import score
from dance_eval.commands.options import MAX_CLIPS
from dance_eval.commands.pictures import draw_sheet, same_music, write_side_by_side
from dance_eval.commands.table import write_tables
from dance_eval.loading import collect_clips
from dance_eval.metrics.report import read_report
from dance_eval.report.page import write_page


def parser() -> ArgumentParser:
    """The options of `report`: those of `score` and of the page."""
    options = score.scoring_parser("Score folders of clips, and draw them.", Path("report"))
    options.add_argument(
        "--max_clips",
        type=PositiveInt,
        default=MAX_CLIPS,
        help="Of the pictures; rows of players on the page.",
    )
    options.add_argument("--title", default="Evaluation of dance videos", help="Of the page.")
    options.add_argument(
        "--embed_mb",
        type=NonNegativeFloat,
        default=1.0,
        help="Videos up to this size are put into the page, larger ones beside it, in videos/.",
    )
    return options


def run(settings: Namespace, *, command: str) -> None:
    """Scores, tables, a picture, of several systems videos beside each other, and the page.

    The page shows what was typed. `UserError` also if no clip could be scored or drawn.
    """
    folder = settings.output
    scoring = settings.clone()
    scoring.output = folder / "metrics.json"
    score.run(scoring)
    document = read_report(scoring.output)
    write_tables(document, folder, intervals=True, all_papers=False)
    entries, _ = collect_clips(settings.folders)
    draw_sheet(entries, folder / "contact_sheet.png", settings, pair=True)
    if any(len(group) > 1 for group in same_music(entries)):
        write_side_by_side(entries, folder / "side_by_side", settings)
    page = folder / "index.html"
    write_page(document, entries, page, settings, command=command)
    print(f"page: {page}")
