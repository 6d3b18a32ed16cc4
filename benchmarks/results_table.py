"""The tables of all results in a folder, as its README.md, and those that pages of docs show.

    python -m benchmarks.results_table

Reads every .json file of ``benchmarks/results`` (folders in it are those of other machines).
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import read_figures, table
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.tables import markdown_table

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
HEAD = """# Results

Written by `python -m benchmarks.results_table` from the .json files beside it; do not edit.

Each file is one run of one benchmark: `benchmark`, `command` (what was typed), `settings` (all
options), `machine` (hardware, load, versions), `figures` and `details`. A figure has `what`,
`value`, `unit`, `limit` (what counted work at a stated rate gives, or a goal; the note says which),
`ratio` (value over limit) and `note`. Limits of work: counted by `musicinfuser/networks/work.py`,
over the rates in `benchmarks/limits.py`.
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


def plan_table(folder: Path) -> str:
    """What a step takes of each backbone with each profile."""
    result, _ = read_figures(folder / "plan.json")
    return markdown_table(result["details"]["rows"], num_digits=1)


NO_GPU = "No GPU has run it yet: there are no figures of speed and memory at full size."


def gpu_table(folder: Path) -> str:
    """What `benchmarks.gpu_check` found on each GPU."""
    parts = []
    for path in sorted(folder.glob("*/gpu_check.json")):
        result, figures = read_figures(path)
        if result["settings"]["try_out"]:
            raise UserError(f"{path} is of a rehearsal, whose numbers say nothing; take it away.")
        rows = [{k: v for k, v in f.row().items() if k != "value / limit"} for f in figures]
        parts.append(f"{_machine(result['machine'])}\n\n{markdown_table(rows)}")
    return "\n".join(parts) or NO_GPU


SHOWN: Mapping[str, tuple[Path, Callable[[Path], str]]] = {
    "plan": (ROOT / "docs" / "clusters_and_memory.md", plan_table),
    "gpu": (ROOT / "README.md", gpu_table),
}
"""Tables of pages, between comments that name them: of which page, and what writes it."""


def with_table(text: str, name: str, shown: str) -> str:
    """A page's text with another table between the comments that name it."""
    begin, end = f"<!-- {name}: by python -m benchmarks.results_table -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    found, number = pattern.subn(lambda _: f"{begin}\n{shown.rstrip()}\n{end}", text)
    if number != 1:
        raise UserError(
            f"a page must have the comments {begin} and {end} once, not {number} times."
        )
    return found


def _machine(machine: dict[str, Any]) -> str:
    packages = machine["packages"]
    names = [f"{name} {version}" for name, version in packages.items() if version]
    where = machine["device"] if machine["device"] != "cpu" else machine["cpu"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    load = ", ".join(map(str, machine["load"]))
    return f"{where}, {threads}, load {load} at the end; {', '.join(names)}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, and what other pages show of the committed results."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--folder", type=Path, default=RESULTS)
    folder = options.parse_args(arguments).folder
    write_text(folder / "README.md", page(folder))
    if folder == RESULTS:
        for name, (path, shown) in SHOWN.items():
            write_text(path, with_table(path.read_text(), name, shown(folder)))


if __name__ == "__main__":
    main()
