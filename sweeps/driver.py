"""Running a sweep: what is left of it, then the table."""

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from musicinfuser.atomic_files import require_writable, write_text
from sweeps import inputs
from sweeps.errors import SweepError
from sweeps.plan import Run, plan_runs
from sweeps.run_folder import (
    changed_inputs,
    check_unchanged,
    is_finished,
    note_inputs,
    read_state,
    settings_that_differ,
)
from sweeps.settings import SweepSpec, build_executor
from sweeps.work import Outcome, Work, allow_work, stop_all

LIST_NAME = "sweep.json"
CONSEQUENCES = {
    "fit": "it was trained; it is left as it is, and the table says so (to train it again, remove "
    "its folder)",
    "predict": "its clips were made; they are made again, the former ones are put aside",
    "score": "its clips were scored; they are scored again",
}
POLL_SECONDS = 0.2


def run_sweep(spec: SweepSpec, *, command: str) -> int:
    """Do what is left of a sweep and write its table.

    Args:
        spec: The sweep.
        command: What was typed, for the table.

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
    for place, option in ((folder, "folder"), (Path(spec.runs or folder), "`runs`")):
        require_writable(place, option=option)
    for run in runs:
        check_unchanged(run)
        _say_what_changed(run)
    executor = build_executor(spec)
    inputs.write_memo(folder)
    write_text(folder / LIST_NAME, json.dumps({"runs": list(map(_listed, runs))}, indent=1) + "\n")
    outcomes: list[Outcome] = []
    allow_work()
    is_stopped = False
    with _sigterm_as_ctrl_c():
        try:
            with executor:
                # A run that takes another's adapters comes after all that train.
                for wave in ([r for r in runs if not r.after], [r for r in runs if r.after]):
                    outcomes += _finish(wave, executor)
        except KeyboardInterrupt:
            is_stopped = True
            print("stopped; repeat the command to go on.", file=sys.stderr, flush=True)
    inputs.look_again()
    num_finished = sum(map(is_finished, runs))
    print(f"{num_finished} of {len(runs)} runs are finished.")
    if num_finished:
        # What makes tables loads torch, which takes seconds; nothing before this does.
        from sweeps.table import write_sweep_table

        write_sweep_table(spec, runs, command=command)
    inputs.write_memo(folder)
    if is_stopped:
        return 130
    return 0 if num_finished == len(runs) else 1


def read_list(folder: Path) -> list[dict[str, Any]]:
    """A sweep's runs: ``name``, ``folder``, ``row``, ``seed`` and names of the ``stages``.

    Raises:
        SweepError: It is no sweep's folder.
    """
    try:
        return json.loads((folder / LIST_NAME).read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError) as error:
        raise SweepError(
            f"{folder}: holds no sweep; name the `folder` of a sweep that was started."
        ) from error


def _say_what_changed(run: Run) -> None:
    state = read_state(run.folder)
    for stage in run.stages:
        begun = state["stages"].get(stage.name, {})
        if begun.get("is_done"):
            # Of the other stages, other settings are refused.
            wrong = settings_that_differ(begun, stage) if stage.name == "score" else []
            named = (f"score.{phrase.partition(':')[0]}" for phrase in wrong)
            for what in [*changed_inputs(state, stage), *named]:
                print(f"{run.name}: {what} has changed since {CONSEQUENCES[stage.name]}.")


def _listed(run: Run) -> dict[str, Any]:
    stages = [stage.name for stage in run.stages]
    folder = str(run.folder.absolute())
    return {"name": run.name, "folder": folder, "row": run.row, "seed": run.seed, "stages": stages}


def _finish(runs: Sequence[Run], executor: Any) -> list[Outcome]:
    """Have an executor do what is left of some runs; reports each as it ends."""
    due = []
    for run in runs:
        if is_finished(run):
            note_inputs(run)
            print(f"{run.name}: was finished before", flush=True)
        else:
            due.append(run)
    if not due:
        return []
    # submitit sends what is submitted within a batch as one array.
    with getattr(executor, "batch", nullcontext)():
        pending = {run.name: executor.submit(Work(), run) for run in due}
    outcomes = []
    try:
        while pending:
            for name in [name for name, future in pending.items() if future.done()]:
                outcomes.append(_outcome(name, pending.pop(name)))
                said = f" ({outcomes[-1].sentence})" if outcomes[-1].sentence else ""
                print(f"{name}: {outcomes[-1].status}{said}", flush=True)
            time.sleep(POLL_SECONDS if pending else 0)
    except KeyboardInterrupt:
        _stop(pending)
        raise
    return outcomes


def _outcome(name: str, future: Any) -> Outcome:
    error = future.exception()
    if error is not None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        return Outcome(name, "failed", f"{type(error).__name__}: {reason}")
    return future.result()


def _stop(pending: dict[str, Any]) -> None:
    """End well: what waits is taken back, what works saves; a second ctrl-C does not wait."""
    print("ending: runs save where they are (ctrl-C again to kill them) ...", file=sys.stderr)
    for future in pending.values():
        future.cancel()
    stop_all()
    try:
        while not all(future.done() for future in pending.values()):
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        stop_all(kill=True)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
