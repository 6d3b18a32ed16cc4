"""`train.py sweep FILE` and `train.py status FOLDER`."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from musicinfuser import folder_lock
from musicinfuser.atomic_files import require_writable, write_text
from musicinfuser.option_parser import OptionParser
from musicinfuser.setting_differences import differences
from musicinfuser.tables import Row, markdown_table
from sweeps import inputs, work
from sweeps.plan import Run, plan_runs
from sweeps.settings import SweepError, SweepSpec, build_executor, read_sweep

DESCRIPTIONS = {
    "sweep": "Do what is left of a sweep and write its table; can be repeated.",
    "status": "How far a sweep is.",
}
CLEAR_SCREEN = "\033[H\033[J"
LIST_NAME = "sweep.json"
CONSEQUENCES = {
    "fit": "it was trained; it is left as it is, and the table says so (to train it again, remove "
    "its folder)",
    "predict": "its clips were made; they are made again, the former ones are put aside",
    "score": "its clips were scored; they are scored again",
}
POLL_SECONDS, STATUS_SECONDS = 0.2, 5.0


def sweep_command(arguments: list[str]) -> int:
    """Run one of the two commands, by a command line that begins with it; the exit code."""
    name, *rest = arguments
    parser = OptionParser(prog=f"train.py {name}", description=DESCRIPTIONS[name])
    if name == "sweep":
        parser.add_argument("file", type=Path, help="Such as configs/sweeps/table1.yaml.")
        spec = read_sweep(parser.parse_args(rest).file)
        return run_sweep(spec, command=shlex.join(["python", "train.py", *arguments]))
    parser.add_argument("folder", type=Path, help="The `folder` of the sweep.")
    parser.add_argument("--once", action="store_true", help="Print the table once and end.")
    settings = parser.parse_args(rest)
    try:
        show_status(settings.folder, once=settings.once)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def run_sweep(spec: SweepSpec, *, command: str) -> int:
    """Do what is left of a sweep and write its table, with what was typed.

    Returns:
        0 if every run is finished, 1 if some failed or are busy, 130 after ctrl-C.

    Raises:
        SweepError: Before anything is started: a run was made with other settings, or the executor
            cannot be built.
    """
    runs = plan_runs(spec)
    folder = Path(spec.folder)
    inputs.read_memo(folder)
    inputs.look_again()
    work.ask_again()
    for place, option in ((folder, "folder"), (Path(spec.runs or folder), "`runs`")):
        require_writable(place, option=option)
    for run in runs:
        work.check_unchanged(run)
        _print_changes(run)
    executor = build_executor(spec)
    inputs.write_memo(folder)
    _write_list(runs, folder / LIST_NAME)
    work.allow_work()
    is_stopped = False
    # SIGTERM as ctrl-C.
    with work.handled(signal.SIGTERM, signal.default_int_handler):
        try:
            with executor:
                # A run that takes another's adapters comes after all that train.
                for wave in ([r for r in runs if not r.after], [r for r in runs if r.after]):
                    _finish(wave, executor)
        except KeyboardInterrupt:
            is_stopped = True
            print("stopped; repeat the command to go on.", file=sys.stderr, flush=True)
    inputs.look_again()
    num_finished = sum(map(work.is_finished, runs))
    print(f"{num_finished} of {len(runs)} runs are finished.")
    if num_finished:
        # What makes tables loads torch, which takes seconds; nothing before this does.
        from sweeps.table import write_sweep_table

        write_sweep_table(spec, runs, command=command)
    inputs.write_memo(folder)
    if is_stopped:
        return 130
    return 0 if num_finished == len(runs) else 1


def _print_changes(run: Run) -> None:
    state = work.read_state(run.folder)
    for stage in run.stages:
        begun = state["stages"].get(stage.name, {})
        if begun.get("is_done"):
            # Of the other stages, other settings are refused.
            is_scored = stage.name == "score"
            wrong = differences(stage.settings, begun["settings"]) if is_scored else []
            named = (f"score.{phrase.partition(':')[0]}" for phrase in wrong)
            for what in [*work.changed_inputs(state, stage), *named]:
                print(f"{run.name}: {what} has changed since {CONSEQUENCES[stage.name]}.")


def _write_list(runs: Sequence[Run], path: Path) -> None:
    """What `status` reads of a sweep."""
    listed = [
        {
            "name": run.name,
            "folder": str(run.folder.absolute()),
            "row": run.row,
            "seed": run.seed,
            "stages": [stage.name for stage in run.stages],
        }
        for run in runs
    ]
    write_text(path, json.dumps({"runs": listed}, indent=1) + "\n")


def _finish(runs: Sequence[Run], executor: Any) -> None:
    """Have an executor do what is left of some runs; reports each as it ends."""
    due = []
    for run in runs:
        if work.is_finished(run):
            work.note_inputs(run)
            print(f"{run.name}: was finished before", flush=True)
        else:
            due.append(run)
    # submitit sends what is submitted within a batch as one array.
    with getattr(executor, "batch", nullcontext)() if due else nullcontext():
        pending = {run.name: executor.submit(work.Work(), run) for run in due}
    try:
        while pending:
            for name in [name for name, future in pending.items() if future.done()]:
                print(f"{name}: {_outcome(pending.pop(name))}", flush=True)
            time.sleep(POLL_SECONDS if pending else 0)
    except KeyboardInterrupt:
        _stop(pending)
        raise


def _outcome(future: Any) -> str:
    if (error := future.exception()) is None:
        return future.result()
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return f"failed ({type(error).__name__}: {reason})"


def _stop(pending: dict[str, Any]) -> None:
    """End well: what waits is taken back, what works saves; a second ctrl-C does not wait."""
    print("ending: runs save where they are (ctrl-C again to kill them) ...", file=sys.stderr)
    for future in pending.values():
        future.cancel()
    work.stop_all()
    try:
        while not all(future.done() for future in pending.values()):
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        work.stop_all(kill=True)


def show_status(folder: Path, *, once: bool) -> None:
    """Print the table of a sweep's runs, once or until every run is finished."""
    while True:
        rows = status_rows(folder)
        table = markdown_table(rows)
        print(f"{CLEAR_SCREEN if sys.stdout.isatty() and not once else ''}{table}", flush=True)
        if once or all(row["state"] == "finished" for row in rows):
            return
        time.sleep(STATUS_SECONDS)


def status_rows(folder: Path) -> list[Row]:
    """One row per run: state, stage, step, last loss, time left of the training, last failure.

    `SweepError` if the folder is no sweep's.
    """
    try:
        runs = json.loads((folder / LIST_NAME).read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError) as error:
        raise SweepError(
            f"{folder}: holds no sweep; name the `folder` of a sweep that was started."
        ) from error
    return [_status_row(Path(run["folder"]), run) for run in runs]


def _status_row(folder: Path, run: dict[str, Any]) -> Row:
    state, progress = work.read_state(folder), work.read_progress(folder)
    stages = state["stages"]
    left = [name for name in run["stages"] if not stages.get(name, {}).get("is_done")]
    step, time_left = progress.get("step"), ""
    if folder_lock.is_locked(folder / work.LOCK_NAME):
        what = "running"
        pace = progress.get("seconds_per_step")  # since it was last started
        if left[:1] == ["fit"] and pace is not None:
            seconds = round((progress["max_steps"] - progress["step"]) * pace)
            time_left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    elif not left:
        what = "finished"
    elif state["failure"]:
        what = "failed"
    else:
        what = "stopped" if stages else "waiting"
    return {
        "row": run["row"],
        "seed": "" if run["seed"] is None else str(run["seed"]),
        "state": what,
        "stage": left[0] if left else "",
        "step": "" if step is None else f"{step} / {progress['max_steps']}",
        "loss": progress.get("loss"),
        "time left": time_left,
        "failure": state["failure"] or "",
    }
