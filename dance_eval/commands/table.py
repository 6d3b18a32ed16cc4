"""`evaluate.py table`: a table of scores, printed and written."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from dance_eval.loading import EvaluationError
from dance_eval.metrics.following import following_rows, is_controlled
from dance_eval.metrics.report import (
    Document,
    compared_rows,
    long_rows,
    read_report,
)
from dance_eval.report.paper_tables import paper_text
from dance_eval.tables import SUFFIXES, csv_table, latex_table
from musicinfuser.atomic_files import write_text
from musicinfuser.option_parser import OptionParser
from musicinfuser.tables import markdown_table


def parser() -> ArgumentParser:
    """The options of `table`."""
    table = OptionParser(description="Write a table of scores.")
    table.add_argument(
        "metrics_files",
        nargs="+",
        type=Path,
        help="What `score` wrote; several of the same clips are put together.",
    )
    table.add_argument(
        "--format",
        type=Literal["markdown", "latex", "csv"] | None,
        default=None,
        help="Default: by --output, else markdown.",
    )
    table.add_argument(
        "--layout",
        type=Literal[
            "auto",
            "metrics",
            "paper",
            "musicinfuser",
            "wan_dancer",
            "singdance",
            "mace_dance",
            "x_dancer",
        ],
        default="auto",
        help="All values, all published tables with rows of ours, those of one paper, or what "
        "there is of both.",
    )
    table.add_argument(
        "--intervals", type=bool, default=False, help="Also in the layout of published tables."
    )
    table.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Write it there, too; a folder gets both layouts as .md, .tex and .csv.",
    )
    return table


def run(settings: Namespace) -> None:
    """Print a table of scores and, if asked, write it to a file, or all of them to a folder.

    `UserError` if the output's name ends in nothing that is known, or the file holds no scores.
    """
    document = put_together({path: read_report(path) for path in settings.metrics_files})
    form, output, layout = settings.format, settings.output, settings.layout
    suffix = output.suffix if output is not None else ""
    if form is None:
        forms = {known: name for name, known in SUFFIXES.items()}
        if suffix and suffix not in forms:
            raise EvaluationError(
                f"{output}: ends in {suffix}; name it {', '.join(forms)}, give --format, or name "
                f"a folder."
            )
        form = forms.get(suffix, "markdown")
    text = _metrics_text(document, form) if layout in ("auto", "metrics") else ""
    if layout not in ("auto", "metrics") or (layout == "auto" and form != "csv"):
        beside = paper_text(
            document,
            form=form,
            intervals=settings.intervals,
            only_judged=layout == "auto",
            layout=None if layout in ("auto", "paper") else layout,
        )
        text += f"\n{beside}" if text and beside else beside
    print(text, end="")
    if output is not None and suffix:
        write_text(output, text)
    elif output is not None:
        write_tables(document, output, intervals=settings.intervals, all_papers=True)


def put_together(documents: Mapping[Path, Document]) -> Document:
    """One document of several that hold different metrics, by their files.

    `UserError` if two give different numbers for one value of a system.
    """
    paths = list(documents)
    if len(paths) == 1:
        return documents[paths[0]]
    whole = copy.deepcopy(documents[paths[0]])
    clips = {_place(clip): clip for clip in whole["clips"]}
    for path in paths[1:]:
        for system, values in documents[path]["systems"].items():
            own = whole["systems"].setdefault(system, {})
            for name, summary in values.items():
                if own.setdefault(name, summary)["mean"] != summary["mean"]:
                    raise EvaluationError(
                        f"{path}: has another {name} of {system!r} than {paths[0]}; leave one out."
                    )
        for clip in documents[path]["clips"]:
            known = clips.setdefault(_place(clip), clip)
            if known is not clip:
                for group in ("values", "failures", "keys"):
                    known[group] = {**clip.get(group, {}), **known.get(group, {})}
    return whole | {"clips": list(clips.values())}


def _place(clip: Document) -> tuple[str, str, str]:
    return clip["system"], clip.get("folder", ""), clip.get("file", "")


def write_tables(document: Document, folder: Path, *, intervals: bool, all_papers: bool) -> None:
    """Write both layouts in every form: ``table`` and ``paper_tables``, .md, .tex and .csv.

    With ``intervals`` our cells of the published tables say ``mean [low, high]``, with
    ``all_papers`` these are written also where no judge of ours filled any.
    """
    for form, suffix in SUFFIXES.items():
        write_text(folder / f"table{suffix}", _metrics_text(document, form))
        beside = paper_text(document, form=form, intervals=intervals, only_judged=not all_papers)
        if beside:
            write_text(folder / f"paper_tables{suffix}", beside)


def _metrics_text(document: Document, form: str) -> str:
    """All values of all systems: side by side for reading, one per line in CSV.

    For reading, what controls say of whether the music is followed comes first, if any were made.
    """
    if form == "csv":
        return csv_table(long_rows(document))
    rows, following = compared_rows(document), following_rows(document)
    following = following if is_controlled(following) else []
    if form == "latex":
        intervals = f"{document['confidence']:.0%} intervals."
        first = latex_table(following, caption=f"Does it follow the music? Means, {intervals}")
        second = latex_table(rows, caption=f"Means over clips, {intervals}")
    else:
        first, second = markdown_table(following), markdown_table(rows)
    return f"{first}\n{second}" if first else second
