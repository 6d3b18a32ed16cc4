"""The tables of all results in a folder, as its README.md.

    python -m benchmarks.results_table

Reads every .json file of ``benchmarks/results`` (folders in it are those of other machines).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import read_figures, table
from musicinfuser.atomic_files import write_text

RESULTS = Path(__file__).parent / "results"
HEAD = """# Results

Written by `python -m benchmarks.results_table` from the .json files beside it; do not edit.

Each file is one run of one benchmark: `benchmark`, `command` (what was typed), `settings` (all
options), `machine` (hardware, load, versions), `figures` and `details`. A figure has `what`,
`value`, `unit`, `limit` (what counted work at a stated rate gives, or a goal; the note says which),
`ratio` (value over limit) and `note`. Limits of work come from `benchmarks/limits.py`.
"""


def page(folder: Path) -> str:
    """One section per result, in the order of names."""
    parts = [HEAD]
    for path in sorted(folder.rglob("*.json")):
        result, figures = read_figures(path)
        name = path.relative_to(folder).with_suffix("").as_posix()
        parts.append(f"## {name}\n\n`{result['command']}`\n\n{_machine(result['machine'])}\n")
        parts.append(table(figures))
    return "\n".join(parts)


def _machine(machine: dict[str, Any]) -> str:
    packages = machine["packages"]
    names = [f"{name} {version}" for name, version in packages.items() if version]
    where = machine["device"] if machine["device"] != "cpu" else machine["cpu"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    load = ", ".join(map(str, machine["load"]))
    return f"{where}, {threads}, load {load} at the end; {', '.join(names)}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--folder", type=Path, default=RESULTS)
    folder = options.parse_args(arguments).folder
    write_text(folder / "README.md", page(folder))


if __name__ == "__main__":
    main()
