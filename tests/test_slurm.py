"""The job script with stand-ins for SLURM's commands, and a training under SLURM's variables."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.ranks import run_ranks
from tests.test_ddp import TWO, arguments, checkpoint, finish, record

SCRIPT = ROOT / "configs" / "slurm" / "train.sbatch"
OVERLAY = f"--config={ROOT}/configs/slurm/slurm.yaml"
VARIABLES = {
    "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "musicinfuser", "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NNODES": "1", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0",
    "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
}  # fmt: skip
# Runs until it is told to save, or for a moment.
SHORT_SRUN = """#!/bin/bash
trap 'echo saved; exit {code}' TERM
echo $$ > tasks
echo "$@" > srun
for i in {{1..{moments}}}; do sleep 0.1; done
exit {code}
"""
# Starts the processes of a node, and ends when they have.
REAL_SRUN = f"""#!{sys.executable}
import os, subprocess, sys
command = [sys.executable, *sys.argv[3:]]
tasks = [
    subprocess.Popen(command, env=os.environ | {{"SLURM_PROCID": r, "SLURM_LOCALID": r}})
    for r in "01"
]
open("tasks", "w").write(" ".join(str(task.pid) for task in tasks))
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def submit(tmp_path: Path):
    """``submit(srun, *arguments)``: the job's script, running in a folder of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def start(srun: str, *arguments: str) -> subprocess.Popen[str]:
        write("srun", srun)
        write("scancel", '#!/bin/bash\necho "$@" >> scancel\nkill -TERM $(cat tasks)\n')
        write("scontrol", '#!/bin/bash\necho "$@" >> scontrol\n')
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env=os.environ
            | VARIABLES
            | {"SLURM_SUBMIT_DIR": str(tmp_path), "PATH": f"{folder}:{os.environ['PATH']}"}
            | {"PYTHONPATH": str(ROOT), "MASTER_PORT": "29511", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not path.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_whose_time_is_up_saves_and_is_requeued(submit, tmp_path: Path, code: int) -> None:
    job = submit(SHORT_SRUN.format(code=code, moments=600), "--config=x")
    wait_for(tmp_path / "srun", job)
    job.send_signal(signal.SIGUSR1)
    assert job.communicate(timeout=60)[0] == "saved\n"
    assert job.returncode == code
    assert (tmp_path / "scancel").read_text() == "--signal=TERM 1234\n"
    assert (tmp_path / "srun").read_text().split() == [
        "--kill-on-bad-exit=1", ".venv/bin/python", "train.py", "fit", "--config=x",
        "--config", "configs/slurm/slurm.yaml",
        "--trainer.num_nodes", "1", "--trainer.devices", "2",
    ]  # fmt: skip
    if code:
        assert not (tmp_path / "scontrol").exists()
    else:
        assert (tmp_path / "scontrol").read_text() == "requeue 1234\n"


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_ends_by_itself_is_not_requeued(submit, tmp_path: Path, code: int) -> None:
    job = submit(SHORT_SRUN.format(code=code, moments=2))
    assert job.communicate(timeout=60)[0] == ""
    assert job.returncode == code
    assert not (tmp_path / "scontrol").exists()


def test_processes_of_slurm_save_on_sigterm_and_go_on(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    environment = VARIABLES | {"SLURM_PROCID": "{rank}", "SLURM_LOCALID": "{rank}"}
    run = arguments(tmp_path / "run", small_parts, small_cache, *TWO, OVERLAY, steps=3)
    told = [a.replace("/record}", "/record, at_step: 1, end: SIGTERM}") for a in run]
    assert told != run
    finish(run_ranks(tmp_path, told, environment=environment))
    assert checkpoint(tmp_path / "run")["global_step"] == 2
    finish(run_ranks(tmp_path, run, environment=environment))
    assert checkpoint(tmp_path / "run")["global_step"] == 3
    samples = [s for rank in (0, 1) for line in record(tmp_path / "run", rank)
               for s in line["samples"]]  # fmt: skip
    assert sorted(samples) == list(range(3 * 4))


@pytest.mark.slow
def test_a_training_is_requeued_until_it_is_done(
    submit, small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    for name in (".venv", "train.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    run = arguments(tmp_path / "run", small_parts, small_cache, *TWO, steps=200)[1:]
    job = submit(REAL_SRUN, *run)
    wait_for(tmp_path / "run" / "record.0", job)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=200) == 0
    assert (tmp_path / "scontrol").read_text() == "requeue 1234\n"
    done = checkpoint(tmp_path / "run")["global_step"]
    assert 0 < done < 200
    more = [a.replace("max_steps=200", f"max_steps={done + 1}") for a in run]
    assert submit(REAL_SRUN, *more).wait(timeout=200) == 0
    assert checkpoint(tmp_path / "run")["global_step"] == done + 1
    assert (tmp_path / "scontrol").read_text() == "requeue 1234\n"
