"""Programs of other environments, asked by JSON lines over their stdin and stdout.

Judges whose libraries do not go with ours run as a process of their own. The protocol, one JSON
object per line:

    worker: {"ready": true}                    once, when it has loaded what it needs
    we:     {"id": 1, ...}                     a request; large things as paths of files
    worker: {"id": 1, ...}                     its answer
        or  {"id": 1, "error": "a sentence"}   it could not do this one, but can do others

Nothing else may stand on the worker's stdout; what it writes to stderr is quoted when it fails. It
ends when its stdin ends. `dance_eval.workers.serving` is the worker's side.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any

from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_number

# A pipe holds this much, so that a request never waits for a worker that does not read.
MAX_REQUEST_BYTES = 60_000
_QUOTED_LINES, _QUOTED_CHARACTERS = 5, 400
_GRACE_SECONDS = 5.0


class WorkerError(UserError):
    """An external worker did not answer as it should. The message is one sentence."""


class WorkerStartError(WorkerError):
    """An external worker never became ready; it will not the next time either."""


class _DiedError(WorkerError):
    """The process is gone."""


class ExternalWorker:
    """A worker process: started by the first request, and again after it has died.

    A worker that dies over a request gets it a second time, in a fresh process. One that lets a
    request run out of time or answers nonsense is stopped, and started again for the next request.
    One that never becomes ready is not tried again. Requests of several threads take turns; after a
    fork or in a pickled copy the worker is another one.

    Args:
        command: Program and arguments, run in the current folder.
        name: What messages call it.
        start_limit_seconds: For loading, until it says that it is ready.
        time_limit_seconds: For each request.

    Raises:
        ValueError: If the command is empty or a limit is not positive.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str = "worker",
        start_limit_seconds: float = 600.0,
        time_limit_seconds: float = 600.0,
    ) -> None:
        if isinstance(command, str) or not command or not command[0]:
            raise UserError(f"{name}: the command {command!r} is no list of program and arguments.")
        check_number(
            f"{name}: start_limit_seconds", start_limit_seconds, above=0, may_be_infinite=True
        )
        check_number(
            f"{name}: time_limit_seconds", time_limit_seconds, above=0, may_be_infinite=True
        )
        self.command = list(command)
        self.name = name
        self.start_limit_seconds = start_limit_seconds
        self.time_limit_seconds = time_limit_seconds
        self._reset()

    def _reset(self) -> None:
        self.num_starts = 0
        self._process: subprocess.Popen[str] | None = None
        self._start_error: str | None = None
        self._last_id = 0
        self._turn = threading.Lock()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """What was set; processes and locks stay here."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy with no process yet."""
        vars(self).update(state)
        self._reset()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Args:
            request: JSON values; ``"id"`` is added. At most 60 kB: send paths of what is larger.

        Returns:
            The answer without its ``"id"``.

        Raises:
            WorkerError: The worker said that it could not do it, died over it twice, took too long
                or answered nonsense.
            WorkerStartError: It cannot be started or did not become ready.
        """
        if self._owner != os.getpid():
            # Pipes that came through a fork lead to the parent's worker.
            self._reset()
        with self._turn:
            try:
                with contextlib.suppress(_DiedError):
                    return self._exchange(request)
                return self._exchange(request)
            except _DiedError as error:
                raise WorkerError(f"{error} (It was asked twice.)") from error

    def close(self, *, at_once: bool = False) -> None:
        """Let the process end, or end it; the next request starts another."""
        if self._process is not None and self._owner == os.getpid():
            if at_once:
                _signal_group(self._process, signal.SIGKILL)
            self._stop()
        self._process = None

    def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._last_id += 1
        line = json.dumps({**request, "id": self._last_id}) + "\n"
        if len(line) > MAX_REQUEST_BYTES:
            raise WorkerError(f"{self.name}: a request of {len(line)} bytes; send paths of files.")
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._start()
        try:
            answer = self._receive(self.time_limit_seconds, line)
            if answer.pop("id", None) != self._last_id:
                raise WorkerError(f"{self.name}: answered to another request than was asked.")
        except WorkerError:
            self.close(at_once=True)
            raise
        if "error" in answer:
            raise WorkerError(f"{self.name}: {_quoted(str(answer['error']))}")
        return answer

    def _start(self) -> None:
        if self._start_error is not None:
            raise WorkerStartError(self._start_error)
        self.num_starts += 1
        self._stderr = tempfile.TemporaryFile()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            # A session of its own: Ctrl-C is for us, and what it starts can be stopped with it.
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._stop = weakref.finalize(self, _stop, self._process, os.getpid())
            reading = self._process.stdout, self._lines
            threading.Thread(target=_read_answers, args=reading, daemon=True).start()
            hello = self._receive(self.start_limit_seconds)
            if hello.get("ready") is not True:
                raise WorkerError(f"{self.name}: said {hello} instead of being ready.")
        except (OSError, WorkerError) as error:
            self.close(at_once=True)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._start_error = (
                f"{self.name}: `{' '.join(self.command)}` could not be started; run it by hand "
                f"to see why. ({reason})"
            )
            raise WorkerStartError(self._start_error) from error

    def _receive(self, limit_seconds: float, request: str = "") -> dict[str, Any]:
        """The next line of the process, after a request if there is one."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit_seconds)
        except queue.Empty as error:
            raise WorkerError(
                f"{self.name}: gave no answer within {limit_seconds:g} s.{self._end_of_stderr()}"
            ) from error
        except OSError:  # It is gone with the request unread.
            line = ""
        if not line:
            try:
                code = self._process.wait(timeout=_GRACE_SECONDS)
                ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
                ended += " before it answered"
            except subprocess.TimeoutExpired:
                ended = "closed its pipes without an answer"
            raise _DiedError(f"{self.name}: {ended}.{self._end_of_stderr()}")
        answer = None
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
        if not isinstance(answer, dict) or not line.endswith("\n"):
            raise WorkerError(
                f"{self.name}: wrote {_quoted(line)!r}, which is no line with a JSON object; its "
                f"stdout is for answers only.{self._end_of_stderr()}"
            )
        return answer

    def _end_of_stderr(self) -> str:
        # Not by seek, which would move where the worker writes, too.
        file, most = self._stderr.fileno(), _QUOTED_LINES * _QUOTED_CHARACTERS
        end = os.pread(file, most, max(0, os.fstat(file).st_size - most)).decode(errors="replace")
        lines = [line.strip() for line in end.splitlines() if line.strip()]
        words = _quoted(" / ".join(lines[-_QUOTED_LINES:]))
        return f" Its stderr ends with: {words}" if words else ""


def _read_answers(stream: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _stop(process: subprocess.Popen, owner: int) -> None:
    """End its input; if it goes on then, send signals to all that it started."""
    if os.getpid() != owner:
        return
    assert process.stdin
    with contextlib.suppress(OSError):  # It may have died with a request half written.
        process.stdin.close()
    for last_resort in (signal.SIGTERM, signal.SIGKILL):
        try:
            process.wait(timeout=_GRACE_SECONDS)
            break
        except subprocess.TimeoutExpired:
            _signal_group(process, last_resort)
    process.wait()
    # Children that outlived it.
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED_CHARACTERS else f"...{text[-_QUOTED_CHARACTERS:]}"
