"""A run: the state of its folder, and the work that is left, one process per stage."""

import functools
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from musicinfuser import folder_lock
from musicinfuser.atomic_files import write_text
from musicinfuser.moved_names import RENAMED_KEYS, new_name, with_schedule
from musicinfuser.setting_differences import differences, flatten
from sweeps import inputs
from sweeps.gpu_slots import slot_environment
from sweeps.plan import Run, Stage, checkpoints, program
from sweeps.settings import SweepError

LOCK_NAME, STATE_NAME, PROGRESS_NAME = "lock", "state.json", "progress.json"
NAMED_DIFFERENCES = 3
State = dict[str, Any]
"""``stages``: settings, inputs, ``is_done`` and ``seconds`` of each begun; ``failure``."""
LAST_BYTES = 20_000
SEED = "seed_everything"

_processes: dict[int, tuple[subprocess.Popen, int]] = {}
"""Of this process: those under way by id, with the signal that ends them well."""
_stopping = threading.Event()


def read_state(folder: Path) -> State:
    """What `write_state` wrote last, with today's names; of a run that was not begun, no stages."""
    state = _read(folder / STATE_NAME) or {"stages": {}, "failure": None}
    for begun in state["stages"].values():
        begun["settings"] = _renamed(begun["settings"])
    return state


def write_state(folder: Path, state: State) -> None:
    """Write what `read_state` reads."""
    write_text(folder / STATE_NAME, json.dumps(state, indent=1) + "\n")


def read_progress(folder: Path) -> dict[str, Any]:
    """What `callbacks.ProgressFile` wrote last; empty before that."""
    return _read(folder / PROGRESS_NAME)


def is_done(state: State, stage: Stage) -> bool:
    """Whether a stage is done with the settings and inputs that it has now.

    A training is not done again for other inputs, which could take days: the table says so.
    """
    begun = state["stages"].get(stage.name)
    if not (begun and begun["is_done"] and begun["settings"] == stage.settings):
        return False
    return stage.name == "fit" or not changed_inputs(state, stage)


def is_finished(run: Run) -> bool:
    """Whether every stage of a run is done."""
    state = read_state(run.folder)
    return all(is_done(state, stage) for stage in run.stages)


def changed_inputs(state: State, stage: Stage) -> list[str]:
    """Files and folders that hold something else than when a stage began."""
    # What an earlier version began notes no inputs.
    before = state["stages"].get(stage.name, {}).get("inputs")
    return [] if before is None else inputs.changed(before, inputs.contents(stage.reads))


def trained_with_others(run: Run) -> list[str]:
    """Inputs of a finished training that hold something else by now."""
    state = read_state(run.folder)
    return [p for s in run.stages if s.name == "fit" for p in changed_inputs(state, s)]


def note_inputs(run: Run) -> None:
    """Take the inputs of stages that an earlier version finished for what they are now."""
    state = read_state(run.folder)
    begun = [(stage, state["stages"].get(stage.name)) for stage in run.stages]
    unknown = [(stage, entry) for stage, entry in begun if entry and "inputs" not in entry]
    for stage, entry in unknown:
        entry["inputs"] = inputs.contents(stage.reads)
    if unknown:
        write_state(run.folder, state)


def begin(state: State, stage: Stage) -> dict[str, Any]:
    """Note that a stage starts, and with what; gives the entry."""
    state["failure"] = None
    state["stages"][stage.name] = begun = {
        "settings": stage.settings,
        "is_done": False,
        "seconds": state["stages"].get(stage.name, {}).get("seconds", 0.0),
        "inputs": inputs.contents(stage.reads),
    }
    return begun


def put_aside(videos: Path) -> None:
    """Move the clips of a run, if there are any, to a folder beside."""
    if any(videos.glob("*.mp4")):
        number = 1
        while (aside := videos.with_name(f"{videos.name}_before_{number}")).exists():
            number += 1
        videos.rename(aside)


def check_unchanged(run: Run) -> None:
    """Refuse to go on in a folder with what other settings made.

    Scores are not refused: `evaluate.py score` itself sees which of them are due again. Nor is what
    failed before anything was kept. Clips of other inputs are made again, and a training is not
    gone on with. The `SweepError` names what differs. Where nothing does but which options are
    named, the state takes the settings of now.
    """
    state = read_state(run.folder)
    # A `predict` that goes on keeps what lies there.
    results = {"fit": checkpoints(run.folder).glob("*.ckpt"), "predict": run.videos.glob("*.mp4")}
    for stage in run.stages:
        begun = state["stages"].get(stage.name)
        if begun is None or stage.name == "score":
            continue
        wrong = changed_settings(run, stage, begun["settings"])
        if not wrong and begun["settings"] != stage.settings:
            _take_settings(run, stage)
        if stage.name == "fit" and not begun["is_done"]:
            wrong += [f"other content of {path}" for path in changed_inputs(state, stage)]
        if wrong and (begun["is_done"] or any(results[stage.name])):
            more = f" and {len(wrong) - NAMED_DIFFERENCES} more" * (len(wrong) > NAMED_DIFFERENCES)
            raise SweepError(
                f"{run.folder} was made with other settings "
                f"({'; '.join(wrong[:NAMED_DIFFERENCES])}{more}); name another `folder` or row, or "
                "remove that run's folder to make it again."
            )


def changed_settings(run: Run, stage: Stage, then: Mapping[str, Any]) -> list[str]:
    """What differs between the settings that a stage began with and those of now.

    An option that only one of the two names is compared with what it is by default. The record that
    the run kept has it, if it was an option then; else train.py says.
    """
    # Without groups that hold nothing at all.
    before, now = (
        flatten({group: value for group, value in groups.items() if value != {}})
        for groups in (then, stage.settings)
    )
    alone = before.keys() ^ now.keys()
    lists = {key for key, value in before.items() if isinstance(value, tuple)} - alone
    unsure = {key for key in lists if before[key] != now[key]} | alone
    groups = ("config.", "predict.")
    names = {key: key.partition(".")[2] for key in unsure if key.startswith(groups)}
    defaults = {}
    if names:
        record = _record(run, stage)
        recorded, asked = flatten(record), _options_of_command(run, stage)
        had = _options_of_record(run, stage, record)
        for key, name in names.items():
            for side, options, is_older in ((before, had, name in recorded), (now, asked, False)):
                if name in options and (key in side or is_older):
                    side[key] = options[name]
                elif name in options:
                    defaults[key] = options[name]
    return differences(now, before, where="run", defaults=defaults, missing="nothing")


def _record(run: Run, stage: Stage) -> dict[str, Any]:
    """The whole config that a stage worked with, as it is read now; empty if it is not there."""
    path = run.folder / "logs" / f"config_{stage.name}.yaml"
    with suppress(OSError, ValueError, yaml.YAMLError):
        if isinstance(record := yaml.safe_load(path.read_text(encoding="utf-8")), dict):
            return _renamed(record)
    return {}


def _options_of_record(run: Run, stage: Stage, record: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a record and today's defaults; empty without a record, or if it is refused."""
    # Without what tells the runs of a row apart: each row is asked for once.
    shared = {name: value for name, value in record.items() if name != SEED}
    config = json.dumps(shared, default=str).replace(str(run.folder), "RUN")
    return _printed(program("train.py", stage.name), config) if record else {}


def _options_of_command(run: Run, stage: Stage) -> dict[str, Any]:
    """Every option of a stage now, by its dotted name."""
    command = (a.replace(str(run.folder), "RUN") for a in stage.command if SEED not in a)
    return _printed(tuple(command))


def ask_again() -> None:
    """Forget what train.py said of its options."""
    _printed.cache_clear()


@functools.cache
def _printed(command: tuple[str, ...], config: str = "") -> dict[str, Any]:
    """The options that a command has; empty if it refuses its config."""
    print("asking train.py what options are by default ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(config, encoding="utf-8")
        given = (f"--config={path}",) if config else ()
        line = [*command, *given, "--print_config"]
        printed = subprocess.run(line, capture_output=True, text=True)
    return flatten(yaml.safe_load(printed.stdout) or {}) if printed.returncode == 0 else {}


def _take_settings(run: Run, stage: Stage) -> None:
    """Note the settings of now as those of a stage, unless a process works in the folder."""
    with folder_lock.locked(run.folder / LOCK_NAME) as lock:
        if lock is not None:
            state = read_state(run.folder)
            state["stages"][stage.name]["settings"] = stage.settings
            write_state(run.folder, state)


def _renamed(settings: Any, group: str = "") -> Any:
    """Settings with the names of today in place of those of an earlier version."""
    if isinstance(settings, dict):
        found: dict[str, Any] = {}
        for key, value in with_schedule(settings).items():
            *groups, leaf = RENAMED_KEYS[key].split(".") if key in RENAMED_KEYS else [key]
            # What lies in the group that a key moved to is of today.
            if groups == [group]:
                groups = []
            node = found
            for name in groups:
                node = node.setdefault(name, {})
            node[leaf] = _renamed(value, leaf)
        return found
    if isinstance(settings, list):
        return [_renamed(value) for value in settings]
    return (new_name(settings) or settings) if isinstance(settings, str) else settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


class Work:
    """A callable, since that is what can also be put back into a queue (`checkpoint`)."""

    def __call__(self, run: Run) -> str:
        """Do what is left of a run, under its lock; says how it ended, for people."""
        if run.memo is not None:
            inputs.read_memo(run.memo)
        with folder_lock.locked(run.folder / LOCK_NAME) as lock:
            # Stages get the descriptor and hold it too, also if who started them is killed.
            if lock is None:
                return "busy (another process works in its folder)"
            state = read_state(run.folder)
            for stage in run.stages:
                inputs.look_again()
                if is_done(state, stage):
                    continue
                failure = "" if _stopping.is_set() else _do(run, stage, state, lock=lock)
                if failure is not None and _stopping.is_set():
                    return "stopped"
                if failure is not None:
                    state["failure"] = f"{stage.name}: {failure}"
                    write_state(run.folder, state)
                    return f"failed ({state['failure']})"
            return "finished"

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


def _do(run: Run, stage: Stage, state: State, *, lock: int) -> str | None:
    """Run one stage; returns why it failed, or None."""
    if stage.needs is not None and not os.path.exists(stage.needs):
        return f"it needs {stage.needs}, which {run.after} has not made yet"
    if stage.name == "predict" and changed_inputs(state, stage):
        put_aside(run.videos)
    begun = begin(state, stage)
    write_state(run.folder, state)
    start = time.monotonic()
    log = run.folder / f"{stage.name}.log"
    with log.open("ab") as stream:
        code = _call(stage, stream, lock=lock)
    begun["seconds"] += round(time.monotonic() - start, 1)
    begun["is_done"] = code == 0 and _is_whole(run, stage)
    write_state(run.folder, state)
    if code:
        return f"{_last_line(log)} (exit code {code}; all of it in {log})"
    return None if begun["is_done"] else f"it ended before its work was done (see {log})"


def _call(stage: Stage, stream: Any, *, lock: int) -> int:
    # SLURM's warning goes to every process of a job: this one ends its stages on it, which must not
    # die of it. What is ignored stays so in a new program, what is handled does not.
    with handled(signal.SIGUSR2, signal.SIG_IGN):
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
def handled(number: int, handler: Any) -> Iterator[None]:
    """Handle a signal so for a while; only a main thread can, in others nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


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
    """What a program printed last, or its last sentence on what is wrong."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(("train.py: ", "evaluate.py: "))]
    return (ours or lines or ["it printed nothing"])[-1][:400]
