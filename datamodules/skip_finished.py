"""Requests whose clips are there already, so that a `predict` that was cut off goes on."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from musicinfuser.generation_requests import GenerationRequest

DEFAULTS = {"in_windows": False}


@dataclass(frozen=True)
class FinishedSpec:
    """Which clips of an earlier command are kept instead of made again."""

    folder: str
    """Where that command wrote. It must have used the same weights: this is not looked at."""
    matching: dict[str, str | int | float] = field(default_factory=dict)
    """What else their descriptions must say, such as ``system``, ``num_steps`` and
    ``guidance_scale``."""


def unfinished(
    requests: Sequence[GenerationRequest], spec: FinishedSpec
) -> list[GenerationRequest]:
    """The requests that are to be made: no description, other settings, or not its own content.

    A request with a random start takes any start that was drawn for it.
    """
    found = set()
    for path in sorted(Path(spec.folder).glob("*.json")):
        with suppress(ValueError, KeyError, TypeError, OSError):
            described = json.loads(path.read_text(encoding="utf-8"))
            clip = Path(spec.folder, described["file"])
            agrees = all(described.get(name) == value for name, value in spec.matching.items())
            if agrees and sha256(clip.read_bytes()).hexdigest() == described["sha256"]:
                found.add(_identity(described))
                found.add(_identity(described | {"track_offset_seconds": None}))
    return [request for request in requests if _identity(asdict(request)) not in found]


def _identity(values: dict[str, Any]) -> tuple[Any, ...]:
    # Descriptions from before there were windows do not name them.
    return tuple((DEFAULTS | values)[f.name] for f in fields(GenerationRequest))
