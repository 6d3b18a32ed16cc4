"""A process that fails takes the others with it, soon and with a sentence that names it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from callbacks import rank_failures
from callbacks.rank_failures import RankError, ending_together
from musicinfuser.atomic_files import write_text
from tests.conftest import ROOT, cli_arguments
from tests.ranks import run_ranks
from tests.test_ddp import TWO


def arguments(root: Path, parts: Path, cache: Path, *options: str, fails: str = "") -> list[str]:
    """``fails``: what happens to which rank; ``;`` stands between two of them."""
    root.mkdir(exist_ok=True)
    faults = ", ".join(
        f"{{class_path: tests.rank_record.OneRankFails, init_args: {{folder: {root}, {one}}}}}"
        for one in fails.split(";")
        if one
    )
    return cli_arguments(
        "fit", *TWO, "--trainer.accelerator=cpu", "--trainer.max_steps=3",
        "--data.init_args.batch_size=1", f"--trainer.callbacks=[{faults}]",
        "--trainer.enable_checkpointing=false",
        *options, parts=parts, cache=cache, root=root,
    )  # fmt: skip


def run_as_users_do(
    arguments: list[str], *, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Lightning starts the second process; only when both have ended does this return."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("rank: 1, how: kill", "train.py: rank 1 was killed by SIGKILL, so the run ended;"),
        ("rank: 0, how: kill", "train.py: rank 0 ended, so the run ended;"),
        # NCCL would wait for ever; Lightning speaks in this case.
        ("rank: 0, how: hang; rank: 1, how: kill", "[rank: 1] Child process with PID"),
    ],
)
def test_a_killed_process_ends_the_run(
    small_parts: Path, small_cache: Path, tmp_path: Path, fails: str, said: str
) -> None:
    done = run_as_users_do(arguments(tmp_path, small_parts, small_cache, fails=fails))
    assert done.returncode not in (0, None)
    assert said in done.stderr, done.stderr[-3000:]
    pids = [int((tmp_path / f"pid.{rank}").read_text()) for rank in (0, 1)]
    assert not any(map(is_alive, pids))


@pytest.fixture
def own_cache(small_cache: Path, tmp_path: Path) -> Path:
    """A cache to lose. At one sample per process, rank 1 is the one that reads YouTube's clips."""
    return Path(shutil.copytree(small_cache, tmp_path / "cache"))


LOSES_CLIPS = "rank: 1, how: lose clips, step: 0"


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_run(
    small_parts: Path, own_cache: Path, tmp_path: Path
) -> None:
    done = run_as_users_do(arguments(tmp_path / "run", small_parts, own_cache, fails=LOSES_CLIPS))
    assert done.returncode not in (0, None)
    assert "train.py: rank 1: " in done.stderr and "delete it and encode again" in done.stderr
    assert "rank 1 ended with exit code 1, so the run ended" in done.stderr, done.stderr[-3000:]


def test_without_a_main_process_each_says_what_it_knows(
    small_parts: Path, own_cache: Path, tmp_path: Path
) -> None:
    """Started by torchrun, which ends the others."""
    lost, failed = run_ranks(
        tmp_path, arguments(tmp_path / "run", small_parts, own_cache, fails=LOSES_CLIPS)
    )
    assert (lost.exit_code, failed.exit_code) == (1, 1)
    last = failed.output.strip().splitlines()[-1]
    assert last.startswith("train.py: rank 1: ") and last.endswith("delete it and encode again.")
    assert "This was rank 0 of 2, which lost another process" in lost.output


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    patience = {"class_path": "DDPStrategy", "init_args": {"timeout": "0:00:08"}}
    (tmp_path / "patience.yaml").write_text(yaml.safe_dump({"trainer": {"strategy": patience}}))
    run = arguments(
        tmp_path / "run", small_parts, small_cache, f"--config={tmp_path}/patience.yaml",
        fails="rank: 1, how: hang",
    )  # fmt: skip
    waiting, hanging = run_ranks(tmp_path, run, wait_for=0)
    assert waiting.exit_code == 1 and hanging.exit_code is None
    assert "This was rank 0 of 2, which lost another process or waited" in waiting.output


def trainer_with(*commands: str) -> SimpleNamespace:
    """What the main process of a run knows of the others."""
    launcher = _SubprocessScriptLauncher.__new__(_SubprocessScriptLauncher)
    launcher.procs = [subprocess.Popen(["sh", "-c", command]) for command in commands]
    strategy = SimpleNamespace(launcher=launcher)
    return SimpleNamespace(world_size=1 + len(commands), global_rank=0, strategy=strategy)


def test_main_waits_to_hear_who_failed_and_ends_the_rest() -> None:
    trainer = trainer_with("sleep 3600", "sleep 0.3; exit 3")
    with pytest.raises(RankError, match="^rank 2 ended with exit code 3, so the run ended"):
        with ending_together(trainer):
            raise RuntimeError("[/gloo/transport/tcp/pair.cc:525] Connection closed by peer")
    assert trainer.strategy.launcher.procs[0].wait(timeout=5) == -signal.SIGKILL


def test_an_error_of_main_is_its_own() -> None:
    with pytest.raises(KeyError) as error, ending_together(trainer_with("exit 3", "sleep 3600")):
        raise KeyError("a bug")
    assert error.value.__notes__ == ["This was rank 0 of 3."]


def test_a_single_process_is_left_alone() -> None:
    with pytest.raises(KeyError) as error, ending_together(trainer_with()):
        raise KeyError("a bug")
    assert not hasattr(error.value, "__notes__")


def start_main_and_other(folder: Path) -> int:
    """Fork a main process, which forks another; returns main's id. Neither comes back."""
    main = os.fork()
    if main:
        return main
    try:
        os.environ.pop("LOCAL_RANK", None)
        rank_failures.note_main_process()
        if other := os.fork():
            write_text(folder / "pid", str(other))
            time.sleep(3600)
        os.dup2(os.open(folder / "output", os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = open(2, "w", closefd=False)
        os.environ["LOCAL_RANK"] = "1"
        rank_failures.note_main_process()
        with ending_together(SimpleNamespace(world_size=2, global_rank=1)):
            time.sleep(3600)  # stands for a collective that nobody joins
    finally:
        os._exit(2)


def test_a_process_that_hangs_ends_with_main(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(rank_failures, "PATIENCE_SECONDS", 0.2)
    main = start_main_and_other(tmp_path)
    while not (tmp_path / "pid").is_file():
        time.sleep(0.05)
    other = int((tmp_path / "pid").read_text())
    time.sleep(1.0)
    assert is_alive(other)
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    deadline = time.monotonic() + 60
    while is_alive(other) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(other)
    assert (tmp_path / "output").read_text() == "train.py: rank 0 ended, so rank 1 does.\n"
