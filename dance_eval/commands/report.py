"""`evaluate.py report`: scores, tables, pictures and a page with all of it, in one folder."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from dance_eval.commands import score
from dance_eval.commands.options import MAX_CLIPS, drawing_options
from dance_eval.loading import collect_clips, draw_sheet, same_music, write_side_by_side
from dance_eval.metrics.report import read_report
from dance_eval.report.page import write_page
from dance_eval.report.score_tables import write_tables

EMBED_MB = 1.0  # unless told otherwise


def parser() -> ArgumentParser:
    """The options of `report`: those of `score` and of the page."""
    whole = score.scoring_parser(
        description="Score folders of clips, and draw them.", output=Path("report")
    )
    whole.add_argument(
        "--max_clips",
        type=PositiveInt,
        default=MAX_CLIPS,
        help="Of the pictures; cells of the page.",
    )
    whole.add_argument("--title", default="Evaluation of dance videos", help="Of the page.")
    whole.add_argument(
        "--embed_mb",
        type=NonNegativeFloat,
        default=EMBED_MB,
        help="Videos up to this size are put into the page, larger ones beside it, in videos/.",
    )
    return whole


def run(settings: Namespace, *, command: str) -> None:
    """Scores, tables, a picture, of several systems videos beside each other, and the page.

    Args:
        settings: The options of the verb.
        command: What was typed, for the page.

    Raises:
        EvaluationError, ClipListError, ReportError: Also if no clip could be scored or drawn.
    """
    folder, limits = settings.output, drawing_options(settings)
    scoring = settings.clone()
    scoring.output = folder / "metrics.json"
    score.run(scoring)
    document = read_report(scoring.output)
    write_tables(document, folder, intervals=True, all_papers=False)
    entries, _ = collect_clips(settings.folders)
    draw_sheet(
        entries, folder / "contact_sheet.png", pair=True, max_clips=settings.max_clips, **limits
    )
    if any(len(group) > 1 for group in same_music(entries)):
        write_side_by_side(
            entries, folder / "side_by_side", max_videos=settings.max_clips, **limits
        )
    page = folder / "index.html"
    write_page(
        document,
        entries,
        page,
        title=settings.title,
        max_cells=settings.max_clips,
        max_embedded_bytes=round(settings.embed_mb * 1e6),
        command=command,
        settings=settings.as_dict(),
        **limits,
    )
    print(f"page: {page}")
