"""The worker's side of `dance_eval.external_worker`: requests in, answers out, line by line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(load: Callable[..., Answer], **defaults: str | None) -> None:
    """Load, say so, and answer requests until stdin ends.

    Whatever libraries print goes to stderr: stdout is for answers. An exception is the answer to
    its request, not the end.

    Args:
        load: Prepares everything and returns what turns a request into its answer.
        **defaults: Arguments of ``load``, which are options of the command line by the same names;
            those without a default must be given.
    """
    parser = argparse.ArgumentParser()
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", default=default, required=default is None)
    options = vars(parser.parse_args()) if defaults else {}
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    answer = load(**options)
    say({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        number = request.pop("id")
        try:
            say({**answer(request), "id": number})
        except Exception as error:
            say({"id": number, "error": f"{type(error).__name__}: {error}"})
