"""An end for what cannot be asked to stop, such as a compiler."""

import signal
import time
from types import TracebackType
from typing import Any, Self


class TimeLimit:
    """Within it, what runs in the main thread ends with `TimeoutError` once time is up."""

    def __init__(self, seconds: float | None, began: float) -> None:
        """Set up; None is no limit.

        Args:
            seconds: From ``began`` on.
            began: As `time.perf_counter` gives it.
        """
        self._seconds, self._began = seconds, began
        self._old: Any = None

    @property
    def is_over(self) -> bool:
        """Whether time is up."""
        return self._seconds is not None and time.perf_counter() >= self._began + self._seconds

    def __enter__(self) -> Self:
        """Start the alarm."""
        if self._seconds is not None:
            self._old = signal.signal(signal.SIGALRM, self._end)
            left = self._began + self._seconds - time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Stop it."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._old)

    def _end(self, *_: Any) -> None:
        raise TimeoutError(f"time is up after {self._seconds:g} s")
