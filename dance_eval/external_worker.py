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
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self

from musicinfuser.errors import UserError

# A pipe holds this much, so that a request never waits for a worker that does not read.
MAX_REQUEST_BYTES = 60_000
MAX_ANSWER_CHARACTERS = 16_000_000
_QUOTED_LINES = 5
_QUOTED_CHARACTERS = 400
_GRACE_SECONDS = 5.0


class WorkerError(UserError):
    """An external worker did not answer as it should. The message is one sentence."""


class WorkerStartError(WorkerError):
    """An external worker never became ready; it will not the next time either."""


class ExternalWorker:
    """A worker process: started when first asked, and again after it has died.

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
        if not (start_limit_seconds > 0 and time_limit_seconds > 0):
            raise UserError(
                f"{name}: time limits of {start_limit_seconds} s to start and {time_limit_seconds} "
                "s per request were given; both must be positive."
            )
        self.command = list(command)
        self.name = name
        self.start_limit_seconds = start_limit_seconds
        self.time_limit_seconds = time_limit_seconds
        self.num_starts = 0
        self._reset()

    def _reset(self) -> None:
        self._running: _Running | None = None
        self._failed_start: str | None = None
        self._last_id = 0
        self._turn = threading.Lock()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """What was set; processes and locks stay here."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy with no process yet."""
        vars(self).update(state, num_starts=0)
        self._reset()

    def __enter__(self) -> Self:
        """Itself; the process starts with the first request."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the process."""
        self.close()

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

    def close(self) -> None:
        """Let the process end, or end it; the next request starts another."""
        if self._running is not None and self._owner == os.getpid():
            self._running.stop()
        self._running = None

    def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._last_id += 1
        line = json.dumps({**request, "id": self._last_id}, ensure_ascii=True) + "\n"
        if len(line) > MAX_REQUEST_BYTES:
            raise WorkerError(f"{self.name}: a request of {len(line)} bytes; send paths of files.")
        running = self._started()
        try:
            running.send(line)
            answer = running.receive(self.time_limit_seconds)
            if answer.pop("id", None) != self._last_id:
                raise WorkerError(f"{self.name}: answered to another request than was asked.")
        except WorkerError:
            # It is owed no patience any more.
            running.kill()
            self.close()
            raise
        if "error" in answer:
            raise WorkerError(f"{self.name}: {_quoted(str(answer['error']))}")
        return answer

    def _started(self) -> "_Running":
        if self._failed_start is not None:
            raise WorkerStartError(self._failed_start)
        if self._running is not None and self._running.process.poll() is not None:
            self.close()
        if self._running is None:
            self.num_starts += 1
            try:
                self._running = _Running(self.command, self.name)
                hello = self._running.receive(self.start_limit_seconds)
                if hello.get("ready") is not True:
                    raise WorkerError(f"{self.name}: said {hello} instead of being ready.")
            except (OSError, WorkerError) as error:
                if self._running is not None:
                    self._running.kill()
                self.close()
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._failed_start = (
                    f"{self.name}: `{' '.join(self.command)}` could not be started; run it by hand "
                    f"to see why. ({reason})"
                )
                raise WorkerStartError(self._failed_start) from error
        return self._running


class _DiedError(WorkerError):
    """The process is gone."""


class _Running:
    """One process with its pipes, which two threads empty."""

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        # A session of its own: Ctrl-C is for us, and what it starts can be stopped with it.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._complaints: deque[str] = deque(maxlen=_QUOTED_LINES)
        assert self.process.stdout and self.process.stderr
        self._complaining = _in_background(_read_rest, self.process.stderr, self._complaints)
        _in_background(_read_answers, self.process.stdout, self._lines)
        self.stop = weakref.finalize(self, _stop, self.process, os.getpid())

    def send(self, line: str) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except OSError as error:
            raise _DiedError(self._epitaph()) from error

    def receive(self, limit_seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit_seconds)
        except queue.Empty as error:
            raise WorkerError(
                f"{self.name}: gave no answer within {limit_seconds:g} s.{self._last_words()}"
            ) from error
        if not line:
            raise _DiedError(self._epitaph())
        answer = None
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
        if not isinstance(answer, dict) or not line.endswith("\n"):
            raise WorkerError(
                f"{self.name}: wrote {_quoted(line)!r}, which is no line with a JSON object; its "
                f"stdout is for answers only.{self._last_words()}"
            )
        return answer

    def kill(self) -> None:
        _signal_group(self.process, signal.SIGKILL)

    def _epitaph(self) -> str:
        try:
            code = self.process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{self.name}: closed its pipes without an answer.{self._last_words()}"
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{self.name}: {how} before it answered.{self._last_words()}"

    def _last_words(self) -> str:
        if self.process.poll() is not None:
            self._complaining.join(timeout=1.0)
        words = _quoted(" / ".join(line.strip() for line in list(self._complaints)))
        return f" Its last words: {words}" if words else ""


def _in_background(read: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=read, args=arguments, daemon=True)
    thread.start()
    return thread


def _read_answers(stream: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    while line := stream.readline(MAX_ANSWER_CHARACTERS):
        lines.put(line)
    lines.put("")


def _read_rest(stream: IO[str], lines: deque[str]) -> None:
    while line := stream.readline(_QUOTED_CHARACTERS):
        if line.strip():
            lines.append(line)


def _stop(process: subprocess.Popen, owner: int) -> None:
    """End of input, then, if that is not heard, signals to all that it started."""
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
