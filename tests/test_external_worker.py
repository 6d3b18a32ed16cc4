import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

from dance_eval.external_worker import ExternalWorker, WorkerError, WorkerStartError

COMMAND = [sys.executable, "-m", "tests.brightness_worker"]


@pytest.fixture
def worker():
    with closing(ExternalWorker(COMMAND, name="judge", start_limit_seconds=60)) as worker:
        yield worker


@pytest.fixture
def frames(tmp_path):
    np.save(tmp_path / "frames.npy", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    return str(tmp_path / "frames.npy")


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_gone(pid):
    """Within ten seconds: who is killed takes a moment to die."""
    for _ in range(1000):
        if not is_running(pid):
            return True
        time.sleep(0.01)
    return False


def test_one_process_answers_one_request_after_the_other(worker, frames, tmp_path):
    assert worker.num_starts == 0
    first = worker.ask({"frames": frames})
    assert first.keys() == {"brightness", "pid"} and first["brightness"] == 11.5
    np.save(tmp_path / "dark.npy", np.zeros(3))
    second = worker.ask({"frames": str(tmp_path / "dark.npy")})
    assert second == {"brightness": 0.0, "pid": first["pid"]}
    assert worker.num_starts == 1
    worker.close()
    assert is_gone(first["pid"])
    third = worker.ask({"frames": frames})
    assert third["pid"] != first["pid"] and worker.num_starts == 2


def test_a_request_that_fails_is_named_and_the_worker_lives_on(worker, frames):
    pid = worker.ask({"frames": frames})["pid"]
    with pytest.raises(WorkerError, match="^judge: ValueError: these frames are upside down$"):
        worker.ask({"misdeed": "raise"})
    with pytest.raises(WorkerError, match="^judge: FileNotFoundError: .*missing.npy"):
        worker.ask({"frames": "missing.npy"})
    assert worker.ask({"frames": frames})["pid"] == pid


def test_a_worker_that_died_is_started_again_and_asked_again(worker, frames, tmp_path):
    pid = worker.ask({"frames": frames})["pid"]
    answer = worker.ask({"frames": frames, "misdeed": "die once", "mark": str(tmp_path / "mark")})
    assert answer["brightness"] == 11.5 and answer["pid"] != pid
    os.kill(answer["pid"], signal.SIGKILL)
    assert is_gone(answer["pid"])
    assert worker.ask({"frames": frames})["brightness"] == 11.5
    assert worker.num_starts == 3


def test_a_worker_that_dies_twice_is_quoted(worker, frames):
    with pytest.raises(WorkerError) as error:
        worker.ask({"misdeed": "die"})
    assert str(error.value) == (
        "judge: ended with code 7 before it answered. Its stderr ends with: loading loudly / out "
        "of memory, they say (It was asked twice.)"
    )
    assert worker.num_starts == 2
    assert worker.ask({"frames": frames})["brightness"] == 11.5


def test_a_request_runs_out_of_time(frames):
    with closing(ExternalWorker(COMMAND, name="judge", time_limit_seconds=0.5)) as worker:
        pid = worker.ask({"frames": frames})["pid"]
        with pytest.raises(WorkerError, match=r"no answer within 0.5 s\. .*thinking it over$"):
            worker.ask({"misdeed": "sleep"})
        assert is_gone(pid)
        assert worker.ask({"frames": frames})["pid"] != pid


@pytest.mark.parametrize(
    ("misdeed", "message"),
    [
        ("nonsense", "wrote 'Loading checkpoint shards: 100%', which is no line with a JSON"),
        ("half", 'wrote \'{"id": 1, "brigh\', which is no line with a JSON object'),
        ("list", r"wrote '\[1, 2\]', which is no line with a JSON object"),
        ("other id", "answered to another request"),
    ],
)
def test_nonsense_is_shown_and_ends_the_worker(worker, frames, misdeed, message):
    with pytest.raises(WorkerError, match=message):
        worker.ask({"frames": frames, "misdeed": misdeed})
    # A line too many must not be taken for the next answer.
    assert worker.ask({"frames": frames})["brightness"] == 11.5
    assert worker.num_starts == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["/no/such/python", "-m", "x"],
            r"`/no/such/python -m x` .* \(No such file or directory\)",
        ),
        ([*COMMAND, "--broken"], r"ended with code 3 .* first word / no module named judge\)"),
        ([*COMMAND, "--rude"], r"wrote 'Welcome!', which is no line"),
        ([*COMMAND, "--slow"], r"gave no answer within 1 s"),
        (["cat"], r"gave no answer within 1 s"),
        (["echo", "{}"], r"said {} instead of being ready"),
    ],
)
def test_what_never_gets_ready_is_tried_once(command, message):
    limit = 1 if "1 s" in message else 60
    worker = ExternalWorker(command, name="judge", start_limit_seconds=limit)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match=message) as error:
            worker.ask({})
        assert "run it by hand to see why" in str(error.value) and "\n" not in str(error.value)
    assert worker.num_starts == 1


def test_a_pickled_copy_has_a_process_of_its_own(worker, frames):
    pid = worker.ask({"frames": frames})["pid"]
    with closing(pickle.loads(pickle.dumps(worker))) as copy:
        assert copy.num_starts == 0 and copy.command == worker.command
        assert copy.ask({"frames": frames})["pid"] != pid
    assert is_running(pid)


def test_a_fork_leaves_the_parents_worker_alone(worker, frames):
    pid = worker.ask({"frames": frames})["pid"]
    child = os.fork()
    if not child:
        status = 1
        try:
            other = worker.ask({"frames": frames})["pid"]
            worker.close()
            status = 0 if other != pid and is_running(pid) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert worker.ask({"frames": frames})["pid"] == pid


def test_nothing_is_left_when_the_program_ends(frames):
    program = (
        "from dance_eval.external_worker import ExternalWorker\n"
        f"worker = ExternalWorker({COMMAND!r})\n"
        f"print(worker.ask({{'frames': {frames!r}}})['pid'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert is_gone(int(done.stdout))


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_worker_that_does_not_hear_the_end_is_ended_with_its_children(trap, monkeypatch):
    monkeypatch.setattr("dance_eval.external_worker._GRACE_SECONDS", 0.2)
    answer = 'echo "{\\"id\\": 1, \\"pids\\": [$$, $!]}"'
    script = f'{trap}echo "{{\\"ready\\": true}}"; read line; sleep 600 & {answer}; wait; sleep 600'
    worker = ExternalWorker(["sh", "-c", script])
    pids = worker.ask({})["pids"]
    assert all(map(is_running, pids))
    worker.close()
    assert all(map(is_gone, pids))


def test_wrong_settings_are_refused(worker):
    for command in ([], "python -m x", [""]):
        with pytest.raises(ValueError, match="no list of program"):
            ExternalWorker(command)
    for limits in ({"time_limit_seconds": 0}, {"start_limit_seconds": -1}):
        with pytest.raises(ValueError, match="_limit_seconds is .*; it must be above 0"):
            ExternalWorker(["x"], **limits)
    with pytest.raises(WorkerError, match="send paths of files"):
        worker.ask({"frames": "x" * 70_000})
    assert worker.num_starts == 0
