"""Put the table of a finished sweep among the committed results.

    python -m small_world.experiments.keep_table runs/ablations/small_table1

copies rows.md, rows.json and the plots of the sweep's folder to small_world/experiments/results/,
named by the folder. Refuses a sweep that is not complete, unless told --incomplete.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from musicinfuser.atomic_files import write_text

RESULTS = Path(__file__).parent / "results"
STEM = "rows"


def keep_table(folder: Path, results: Path, *, incomplete: bool = False) -> list[Path]:
    """Copy the table of a sweep; what was there of it before goes.

    Args:
        folder: The ``folder`` of the sweep.
        results: Where to.
        incomplete: Take a table that waits for runs.

    Returns:
        The files written.

    Raises:
        SystemExit: There is no table, or runs are missing.
    """
    numbers = folder / f"{STEM}.json"
    if not numbers.is_file():
        raise SystemExit(f"{folder}: holds no table of a sweep; run `train.py sweep` first.")
    waiting = json.loads(numbers.read_text(encoding="utf-8"))["waiting"]
    if waiting and not incomplete:
        raise SystemExit(
            f"{folder}: {len(waiting)} runs are not finished, such as {waiting[0]}; repeat the "
            "sweep, or give --incomplete."
        )
    name = folder.resolve().name
    for old in results.glob(f"{name}_*.svg"):
        old.unlink()
    text = (folder / f"{STEM}.md").read_text(encoding="utf-8")
    written = []
    for plot in sorted(folder.glob(f"{STEM}_*.svg")):
        written.append(results / plot.name.replace(STEM, name, 1))
        text = text.replace(f"({plot.name})", f"({written[-1].name})")
        results.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plot, written[-1])
    write_text(results / f"{name}.md", text)
    write_text(results / f"{name}.json", numbers.read_text(encoding="utf-8"))
    return [results / f"{name}.md", results / f"{name}.json", *written]


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy the tables of some sweeps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="`folder` of a sweep")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--incomplete", action="store_true", help="also while runs are missing")
    settings = parser.parse_args(arguments)
    for folder in settings.folders:
        for path in keep_table(folder, settings.results, incomplete=settings.incomplete):
            print(path)


if __name__ == "__main__":
    main()
