"""What sbatch is given, with a stand-in for it; and a run that is told its time is up."""

import os
import re
from pathlib import Path

import pytest
from submitit.helpers import DelayedSubmission

from sweeps.settings import SweepError
from sweeps.slurm import SlurmArray
from sweeps.work import Work, allow_work

SBATCH = """#!/bin/bash
cp "$1" {folder}/script
echo "Submitted batch job 4321"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("srun", "#!/bin/bash\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_runs_become_one_array_that_is_requeued(cluster: Path) -> None:
    executor = SlurmArray(
        str(cluster / "jobs"), hours=12, parallel_runs=2, partition="long", gpus=1, memory_gb=64,
        parameters={"account": "dance"},
    )  # fmt: skip
    with executor.batch():
        jobs = [executor.submit(Work(), number) for number in range(3)]
    assert [job.job_id for job in jobs] == ["4321_0", "4321_1", "4321_2"]
    script = (cluster / "script").read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, flags=re.MULTILINE))
    expected = {
        "array": "0-2%2", "time": "720", "requeue": "", "signal": "USR2@600", "partition": "long",
        "gpus-per-node": "1", "ntasks-per-node": "1", "nodes": "1", "mem": "64GB",
        "cpus-per-task": "4", "account": "dance", "open-mode": "append",
    }  # fmt: skip
    assert asked.items() >= expected.items()
    assert "srun --unbuffered" in script and "submitit.core._submit" in script


def test_a_run_whose_time_is_up_goes_back_into_the_queue(cluster: Path) -> None:
    work = Work()
    try:
        delayed = work.checkpoint("the run")
    finally:
        allow_work()
    assert isinstance(delayed, DelayedSubmission)
    assert delayed.function is work and delayed.args == ("the run",)


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SweepError, match="there is no SLURM here"):
        SlurmArray(str(tmp_path), hours=1)
