"""Put the table of a finished sweep among the committed results.

    python -m small_world.experiments.keep_table runs/ablations/small_table1

copies rows.md, rows.json and the plots of the sweep's folder to small_world/experiments/results/,
named by the folder. Refuses a sweep that is not complete, unless --incomplete is given.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from musicinfuser.atomic_files import write_text
from musicinfuser.errors import in_one_sentence
from musicinfuser.label_files import read_json

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy the tables of some sweeps; what was there of them before is removed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="`folder` of a sweep")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--incomplete", action="store_true", help="also while runs are missing")
    settings = parser.parse_args(arguments)
    results = settings.results
    for folder in settings.folders:
        if not (folder / "rows.json").is_file():
            raise SystemExit(f"{folder}: holds no table of a sweep; run `train.py sweep` first.")
        waiting = read_json(folder / "rows.json")["waiting"]
        if waiting and not settings.incomplete:
            raise SystemExit(
                f"{folder}: {len(waiting)} runs are not finished, such as {waiting[0]}; repeat the "
                "sweep, or give --incomplete."
            )
        name = folder.resolve().name
        results.mkdir(parents=True, exist_ok=True)
        for old in results.glob(f"{name}_*.svg"):
            old.unlink()
        for path in (*sorted(folder.glob("rows_*.svg")), folder / "rows.json"):
            shutil.copyfile(path, results / path.name.replace("rows", name, 1))
        text = (folder / "rows.md").read_text(encoding="utf-8").replace("(rows_", f"({name}_")
        write_text(results / f"{name}.md", text)
        print(results / f"{name}.md")


if __name__ == "__main__":
    with in_one_sentence("keep_table"):
        main()
