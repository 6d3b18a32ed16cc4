"""JSON over HTTP with a time limit for the whole exchange, and tries that are repeated."""

import http.client
import json
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dance_eval.judges.judge import JudgeError

_CHUNK_BYTES = 1 << 16
_LONGEST_WAIT_SECONDS = 60.0


class Refused(JudgeError):
    """The server answered, and would answer the same again."""


class Unreachable(JudgeError):
    """No answer came; one may come later.

    Attributes:
        wait_seconds: How long the server asked to wait, or None.
    """

    def __init__(self, message: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def exchange(
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    time_limit_seconds: float,
) -> dict[str, Any]:
    """One GET, or one POST of a body.

    Args:
        url: http or https.
        body: JSON to send, or None for a GET.
        headers: Besides the content's type.
        time_limit_seconds: For connection, request and the whole answer.

    Returns:
        The JSON object that came back.

    Raises:
        Refused: For answers of status 4xx but 408, 425 and 429.
        Unreachable: For everything that may pass: no connection, no or half an answer in time,
            status 408, 425, 429 or 5xx, an answer that is no JSON object.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    end = time.monotonic() + time_limit_seconds
    connection = kind(parts.hostname or "", parts.port, timeout=time_limit_seconds)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"Content-Type": "application/json", "Connection": "close", **headers}
        connection.request("GET" if body is None else "POST", path, body=body, headers=sent)
        response = connection.getresponse()
        pieces = []
        # A server that sends a byte now and then would never run into the socket's own limit.
        while piece := response.read1(_CHUNK_BYTES):
            pieces.append(piece)
            if time.monotonic() > end:
                raise TimeoutError
        missing = response.length
        content = b"".join(pieces)
    except TimeoutError as error:
        raise Unreachable(f"{url}: gave no answer within {time_limit_seconds:g} s.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreachable(f"{url}: gave no answer ({reason}).") from error
    finally:
        connection.close()
    if response.status >= 400:
        said = " ".join(content.decode(errors="replace").split())[:200]
        message = f"{url}: answers with status {response.status} ({said or response.reason})."
        if response.status in (408, 425, 429) or response.status >= 500:
            raise Unreachable(message, wait_seconds=_seconds(response.getheader("Retry-After")))
        raise Refused(message)
    if missing:
        raise Unreachable(f"{url}: broke off with {missing} bytes of its answer missing.")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise Unreachable(f"{url}: gave an answer that is no JSON.") from error
    if not isinstance(document, dict):
        raise Unreachable(f"{url}: gave an answer that is no JSON object.")
    return document


def wait_seconds(attempt: int, *, first_seconds: float, error: Unreachable) -> float:
    """How long to wait after a failed try: twice as long each time, or what the server asks for.

    Args:
        attempt: 0 after the first try.
        first_seconds: The first wait.
        error: What the try ended with.

    Returns:
        At most a minute.
    """
    wait = first_seconds * 2**attempt
    return min(max(wait, error.wait_seconds or 0.0), _LONGEST_WAIT_SECONDS)


def _seconds(header: str | None) -> float | None:
    """A Retry-After in seconds; its other form, a date, is passed over."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
