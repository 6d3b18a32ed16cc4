"""`evaluate.py table`: a table of scores, printed and written."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dance_eval.loading import EvaluationError
from dance_eval.metrics.report import read_report
from dance_eval.report.score_tables import Form, Layout, table_text, write_tables
from musicinfuser.atomic_files import write_text
from musicinfuser.option_parser import OptionParser
from musicinfuser.tables import SUFFIXES


def parser() -> ArgumentParser:
    """The options of `table`."""
    table = OptionParser(description="Write a table of scores.")
    table.add_argument("metrics_file", type=Path)
    table.add_argument(
        "--format", type=Form | None, default=None, help="Default: by --output, else markdown."
    )
    table.add_argument(
        "--layout",
        type=Layout,
        default="auto",
        help="All values, the published tables with rows of ours, or what there is of both.",
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

    Raises:
        EvaluationError: If the output's name ends in nothing that is known.
        ReportError: If the file holds no scores.
    """
    document = read_report(settings.metrics_file)
    form, output = settings.format, settings.output
    suffix = output.suffix if output is not None else ""
    if form is None:
        forms = {known: name for name, known in SUFFIXES.items()}
        if suffix and suffix not in forms:
            raise EvaluationError(
                f"{output}: ends in {suffix}; name it {', '.join(forms)}, give --format, or name "
                f"a folder."
            )
        form = forms.get(suffix, "markdown")
    text = table_text(document, form=form, layout=settings.layout, intervals=settings.intervals)
    print(text, end="")
    if output is not None and suffix:
        write_text(output, text)
    elif output is not None:
        write_tables(document, output, intervals=settings.intervals, all_papers=True)
