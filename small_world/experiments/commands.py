"""Long runs of this repository's commands: each is done once, and those done are kept."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from musicinfuser.atomic_files import write_text


def call(*command: str | Path, done: Path, again: bool = False) -> None:
    """Run a command unless ``done`` is there; its output goes to a log beside.

    Args:
        command: What follows ``python``.
        done: What the command makes last; written empty if the command makes none.
        again: Run it all the same, for commands that see by themselves what is left to do.

    Raises:
        SystemExit: It failed; with the end of its log.
    """
    if done.exists() and not again:
        return
    log = done.parent / f"{done.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{' '.join(map(str, command))[:150]} ...", flush=True)
    with log.open("a") as stream:
        status = subprocess.run(
            [sys.executable, *map(str, command)], stdout=stream, stderr=subprocess.STDOUT
        ).returncode
    if status:
        raise SystemExit(f"a step failed, see {log}: {log.read_text()[-1500:]}")
    if not done.exists():
        write_text(done, "")


def keep_settings(out: Path, settings: Mapping[str, object]) -> None:
    """Refuse to go on in a folder whose results other settings made.

    Args:
        out: Folder of the results; ``settings.json`` is kept there.
        settings: What decides a result.

    Raises:
        SystemExit: Names every setting that differs.
    """
    path = out / "settings.json"
    text = json.dumps(settings, indent=1, default=str) + "\n"
    if not path.exists():
        write_text(path, text)
        return
    before, now = json.loads(path.read_text()), json.loads(text)
    names = sorted(before.keys() | now.keys())
    wrong = [
        f"{name}: {before.get(name)} there, {now.get(name)} here"
        for name in names
        if before.get(name) != now.get(name)
    ]
    if wrong:
        raise SystemExit(
            f"{out} holds results of other settings ({'; '.join(wrong)}); use another."
        )
