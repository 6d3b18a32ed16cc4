"""A run's folder: its lock, what is done, and how far it is."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from musicinfuser import folder_lock
from musicinfuser.atomic_files import write_text
from sweeps import inputs
from sweeps.errors import SweepError
from sweeps.merging import differences
from sweeps.plan import Run, Stage, StageName, checkpoints

LOCK_NAME, STATE_NAME, PROGRESS_NAME = "lock", "state.json", "progress.json"
VIDEOS_NAME = "videos"
NAMED_DIFFERENCES = 3


def locked(folder: Path) -> AbstractContextManager[int | None]:
    """Hold a run's lock, as `folder_lock.locked`.

    A stage that is given the descriptor holds it too, also if who started it is killed.
    """
    return folder_lock.locked(folder / LOCK_NAME)


def is_locked(folder: Path) -> bool:
    """Whether a process works in a folder."""
    return folder_lock.is_locked(folder / LOCK_NAME)


def read_state(folder: Path) -> dict[str, Any]:
    """``stages``: settings, inputs, ``is_done`` and ``seconds`` of each begun; ``failure``."""
    found = _read(folder / STATE_NAME)
    return {"stages": {}, "failure": None} if found is None else found


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write what `read_state` reads."""
    write_text(folder / STATE_NAME, json.dumps(state, indent=1) + "\n")


def read_progress(folder: Path) -> dict[str, Any]:
    """What `callbacks.ProgressFile` wrote last; empty before that."""
    return _read(folder / PROGRESS_NAME) or {}


def is_done(state: dict[str, Any], stage: Stage) -> bool:
    """Whether a stage is done with the settings and inputs that it has now.

    A training is not done again for other inputs, which could take days: the table says so.
    """
    begun = state["stages"].get(stage.name)
    if not (begun and begun["is_done"] and begun["settings"] == _plain(stage.settings)):
        return False
    return stage.name == "fit" or not changed_inputs(state, stage)


def changed_inputs(state: dict[str, Any], stage: Stage) -> list[str]:
    """Files and folders that hold something else than when a stage began."""
    begun = state["stages"].get(stage.name)
    # What an earlier version began notes no inputs.
    before = begun.get("inputs") if begun else None
    return [] if before is None else inputs.changed(before, inputs.contents(stage.reads))


def settings_that_differ(begun: dict[str, Any], stage: Stage) -> list[str]:
    """Which settings a stage began with are others now, as ``name: old != new``."""
    return differences(begun["settings"], _plain(stage.settings))


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


def is_finished(run: Run) -> bool:
    """Whether every stage of a run is done."""
    state = read_state(run.folder)
    return all(is_done(state, stage) for stage in run.stages)


def begin(state: dict[str, Any], stage: Stage) -> None:
    """Note that a stage starts, and with what."""
    before = state["stages"].get(stage.name, {}).get("seconds", 0.0)
    entry = {"settings": _plain(stage.settings), "is_done": False, "seconds": before}
    state["stages"][stage.name] = entry | {"inputs": inputs.contents(stage.reads)}
    state["failure"] = None


def put_aside(folder: Path) -> Path | None:
    """Move the clips of a run to a folder beside; None if there are none."""
    videos = folder / VIDEOS_NAME
    if not any(videos.glob("*.mp4")):
        return None
    number = 1
    while (aside := folder / f"{VIDEOS_NAME}_before_{number}").exists():
        number += 1
    videos.rename(aside)
    return aside


def check_unchanged(run: Run) -> None:
    """Refuse to go on in a folder with what other settings made.

    Scores are not refused: `evaluate.py score` itself sees which of them are due again. Nor is what
    failed before anything was kept. Clips of other inputs are made again, and a training is not
    gone on with.

    Raises:
        SweepError: Names what differs.
    """
    state = read_state(run.folder)
    for stage in run.stages:
        begun = state["stages"].get(stage.name)
        if begun is None or stage.name == "score":
            continue
        is_kept = begun["is_done"] or _has_results(run.folder, stage.name)
        wrong = settings_that_differ(begun, stage)
        if stage.name == "fit" and not begun["is_done"]:
            wrong += [f"other content of {path}" for path in changed_inputs(state, stage)]
        if is_kept and wrong:
            more = f" and {len(wrong) - NAMED_DIFFERENCES} more" * (len(wrong) > NAMED_DIFFERENCES)
            raise SweepError(
                f"{run.folder} was made with other settings "
                f"({'; '.join(wrong[:NAMED_DIFFERENCES])}{more}); name another `folder` or row, or "
                "remove that run's folder to make it again."
            )


def _has_results(folder: Path, stage: StageName) -> bool:
    if stage == "predict":
        # A `predict` that goes on keeps what lies there.
        return any((folder / VIDEOS_NAME).glob("*.mp4"))
    return stage == "fit" and any(checkpoints(folder).glob("*.ckpt"))


def _plain(settings: Any) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(settings, default=str))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
