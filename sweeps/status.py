"""How far a sweep is: a table of its runs."""

import sys
import time
from pathlib import Path
from typing import Any

from musicinfuser.tables import Row, markdown_table
from sweeps.driver import read_list
from sweeps.run_folder import is_locked, read_progress, read_state

CLEAR_SCREEN = "\033[H\033[J"


def status_rows(folder: Path) -> list[Row]:
    """One row per run: state, stage, step, last loss, time left of the training, last failure.

    Raises:
        SweepError: The folder is no sweep's.
    """
    return [_row(Path(run["folder"]), run) for run in read_list(folder)]


def show_status(folder: Path, *, once: bool, every_seconds: float = 5.0) -> None:
    """Print the table, and print it again until every run is finished.

    Args:
        folder: Of the sweep.
        once: Print it once.
        every_seconds: Pause between two tables.

    Raises:
        SweepError: The folder is no sweep's.
    """
    while True:
        rows = status_rows(folder)
        table = markdown_table(rows)
        print(f"{CLEAR_SCREEN if sys.stdout.isatty() and not once else ''}{table}", flush=True)
        if once or all(row["state"] == "finished" for row in rows):
            return
        time.sleep(every_seconds)


def _row(folder: Path, run: dict[str, Any]) -> Row:
    state, progress = read_state(folder), read_progress(folder)
    stages = state["stages"]
    left = [name for name in run["stages"] if not stages.get(name, {}).get("is_done")]
    is_running = is_locked(folder)
    if is_running:
        what = "running"
    elif not left:
        what = "finished"
    elif state["failure"]:
        what = "failed"
    else:
        what = "stopped" if stages else "waiting"
    step = progress.get("step")
    is_training = is_running and left[:1] == ["fit"]
    return {
        "row": run["row"],
        "seed": "" if run["seed"] is None else str(run["seed"]),
        "state": what,
        "stage": left[0] if left else "",
        "step": "" if step is None else f"{step} / {progress['max_steps']}",
        "loss": progress.get("loss"),
        "time left": _time_left(progress) if is_training else "",
        "failure": state["failure"] or "",
    }


def _time_left(progress: dict[str, Any]) -> str:
    """Of the training, at the pace since it was last started."""
    if not progress or progress["seconds_per_step"] is None:
        return ""
    seconds = round((progress["max_steps"] - progress["step"]) * progress["seconds_per_step"])
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
