"""Which clips of an earlier command need not be generated again."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.label_files import read_json

# Older descriptions do not name these.
_YOUNGER = {
    "in_windows": False, "image": None, "negative_prompt": "", "shift": None, "solver": "euler",
}  # fmt: skip


@dataclass(frozen=True)
class FinishedSpec:
    """Which clips of an earlier command are kept instead of made again."""

    folder: str
    """Where that command wrote. It must have used the same weights: this is not looked at."""
    matching: dict[str, str | int | float | None] = field(default_factory=dict)
    """What else their descriptions must say, such as ``system``, ``num_steps`` and
    ``guidance_scale``."""


def unfinished(
    requests: Sequence[GenerationRequest], spec: FinishedSpec
) -> list[GenerationRequest]:
    """The requests that are to be made: no description, other settings, or not its own content.

    A request with a random start takes any start that was drawn for it.
    """

    def identity(values: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(values[f.name] for f in fields(GenerationRequest))

    found = set()
    for path in sorted(Path(spec.folder).glob("*.json")):
        with suppress(ValueError, KeyError, TypeError, OSError):
            described = _YOUNGER | read_json(path)
            clip = Path(spec.folder, described["file"])
            agrees = all(described.get(name) == value for name, value in spec.matching.items())
            if agrees and sha256(clip.read_bytes()).hexdigest() == described["sha256"]:
                found.add(identity(described))
                found.add(identity(described | {"track_offset_seconds": None}))
    return [request for request in requests if identity(asdict(request)) not in found]
