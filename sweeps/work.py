"""The work of a run: its stages, one process after the other."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeps import inputs
from sweeps.gpu_slots import slot_environment
from sweeps.plan import Run, Stage
from sweeps.run_folder import (
    begin,
    changed_inputs,
    is_done,
    locked,
    put_aside,
    read_progress,
    read_state,
    write_state,
)

LAST_BYTES = 20_000

_processes: dict[int, tuple[subprocess.Popen, int]] = {}
"""Of this process: those under way by id, with the signal that ends them well."""
_stopping = threading.Event()


@dataclass(frozen=True)
class Outcome:
    """How the work of a run ended.

    Attributes:
        name: Of the run.
        status: ``busy``: another process works in the folder.
        sentence: For people; empty where the status says it all.
    """

    name: str
    status: Literal["finished", "failed", "stopped", "busy"]
    sentence: str = ""


class Work:
    """A callable, since that is what can also be put back into a queue (`checkpoint`)."""

    def __call__(self, run: Run) -> Outcome:
        """Do what is left of a run, under its lock."""
        if run.memo is not None:
            inputs.read_memo(run.memo)
        with locked(run.folder) as lock:
            if lock is None:
                return Outcome(run.name, "busy", "another process works in its folder")
            state = read_state(run.folder)
            for stage in run.stages:
                inputs.look_again()
                if is_done(state, stage):
                    continue
                if _stopping.is_set():
                    return Outcome(run.name, "stopped")
                failure = _do(run, stage, state, lock=lock)
                if failure is None:
                    continue
                if _stopping.is_set():
                    return Outcome(run.name, "stopped")
                state["failure"] = f"{stage.name}: {failure}"
                write_state(run.folder, state)
                return Outcome(run.name, "failed", state["failure"])
            return Outcome(run.name, "finished")

    def checkpoint(self, run: Run) -> Any:
        """Called by submitit when SLURM's time is nearly up: end well, go back into the queue."""
        from submitit.helpers import DelayedSubmission

        stop_all()
        for process, _ in list(_processes.values()):
            process.wait()
        return DelayedSubmission(self, run)


def stop_all(*, kill: bool = False) -> None:
    """Let the stages under way save and end, and start no other; or end them at once."""
    _stopping.set()
    for process, how in list(_processes.values()):
        try:
            if kill:
                os.killpg(process.pid, signal.SIGKILL)
            elif process.poll() is None:
                process.send_signal(how)
        except ProcessLookupError:
            continue


def allow_work() -> None:
    """Forget an earlier `stop_all`."""
    _stopping.clear()


def _do(run: Run, stage: Stage, state: dict[str, Any], *, lock: int) -> str | None:
    """Run one stage; returns why it failed, or None."""
    if stage.needs is not None and not os.path.exists(stage.needs):
        return f"it needs {stage.needs}, which {run.after} has not made yet"
    if stage.name == "predict" and changed_inputs(state, stage):
        put_aside(run.folder)
    begin(state, stage)
    write_state(run.folder, state)
    start = time.monotonic()
    log = run.folder / f"{stage.name}.log"
    with log.open("ab") as stream:
        code = _call(stage, stream, lock=lock)
    state["stages"][stage.name]["seconds"] += round(time.monotonic() - start, 1)
    failure = f"{_last_line(log)} (exit code {code}; all of it in {log})" if code else None
    if failure is None and not _is_whole(run, stage):
        failure = f"it ended before its work was done (see {log})"
    state["stages"][stage.name]["is_done"] = failure is None
    write_state(run.folder, state)
    return failure


def _call(stage: Stage, stream: Any, *, lock: int) -> int:
    with _ignored_in_children():
        process = subprocess.Popen(
            stage.command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | slot_environment(),
            pass_fds=(lock,),
            start_new_session=True,  # ctrl-C comes to the driver, which passes it on
        )
    _processes[process.pid] = process, stage.stop_signal
    try:
        if _stopping.is_set():  # it came while the process was started
            process.send_signal(stage.stop_signal)
        return process.wait()
    except BaseException:
        # Workers of a pool of processes get ctrl-C themselves.
        _stopping.set()
        process.send_signal(stage.stop_signal)
        process.wait()
        raise
    finally:
        _processes.pop(process.pid, None)


@contextmanager
def _ignored_in_children() -> Iterator[None]:
    """SLURM's warning goes to every process of a job; ours answers it, its children must not die.

    What is ignored stays so in a new program, what is handled does not. Only a main thread can set
    it, and on SLURM this is one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _is_whole(run: Run, stage: Stage) -> bool:
    """Whether a stage that ended with code 0 did all: a training does so on SIGTERM too."""
    if stage.name == "fit":
        progress = read_progress(run.folder)
        # One that stops early or at its time limit is at its end as well.
        is_over = progress.get("ended", False)
        return is_over or (bool(progress) and progress["step"] >= progress["max_steps"])
    if stage.name == "score":
        text = (run.folder / "metrics.json").read_text(encoding="utf-8")
        return bool(json.loads(text)["complete"])
    return True


def _last_line(log: Path) -> str:
    """What a program said last; ours say what is wrong in one sentence."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(("train.py: ", "evaluate.py: "))]
    return (ours or lines or ["it said nothing"])[-1][:400]
