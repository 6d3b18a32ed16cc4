"""A request: one clip to generate, named by its track, prompt and seed."""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from musicinfuser.errors import UserError

# Lists the generated clips of a folder, one json object per line.
MANIFEST_NAME = "manifest.jsonl"
NO_AUDIO = "nothing"
"""In place of what a model hears: no sound, the model without its audio layers."""


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate."""

    track: str
    """An audio file, or a video whose sound is used."""
    prompt: str
    seed: int
    num_frames: int
    """6k + 1."""
    height: int
    width: int
    track_offset_seconds: float | None = 0.0
    """Where the clip starts in the track; None draws a start from the seed."""
    heard: str | None = None
    """What the model hears while the clip keeps its track: another audio file or video, or
    `NO_AUDIO`; None is the track."""
    heard_offset_seconds: float | None = None
    """Where in ``heard`` listening starts; None is the offset in the track."""
    in_windows: bool = False
    """Whether it is sampled in overlapping windows where it is longer than one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not _is_offset(self.track_offset_seconds):
            raise UserError(
                f"track_offset_seconds is {self.track_offset_seconds} for {self.track}; use 0 or "
                "more, or null for a random start."
            )
        if not _is_offset(self.heard_offset_seconds):
            raise UserError(
                f"heard_offset_seconds is {self.heard_offset_seconds} for {self.heard}; use 0 or "
                "more, or null for the offset in the track."
            )
        if self.heard_offset_seconds is not None and self.heard in (None, NO_AUDIO):
            raise UserError(
                f"heard_offset_seconds is {self.heard_offset_seconds}, but no file is heard in "
                f"place of {self.track}; name one in `heard`, or leave the offset out."
            )

    @property
    def track_name(self) -> str:
        """The track without folder and suffix."""
        return Path(self.track).stem

    @property
    def heard_file(self) -> str | None:
        """The file that is heard instead of the track, if there is one."""
        return None if self.heard == NO_AUDIO else self.heard

    @property
    def control(self) -> str:
        """What sets the clip apart from the same system's clips that hear their own track."""
        if self.heard is None:
            return ""
        return "hears nothing" if self.heard == NO_AUDIO else "hears another track"

    def file_stem(self) -> str:
        """A readable file name, unique among requests that differ."""
        identity = (
            f"{self.track}|{self.prompt}|{self.seed}|{self.num_frames}|{self.height}x{self.width}|"
            f"{self.track_offset_seconds}"
        )
        hears = ""
        if self.heard is not None:
            identity += f"|{self.heard}|{self.heard_offset_seconds}"
            hears = f"_hears-{slug(Path(self.heard).stem, max_length=20, max_bytes=40)}"
        if self.in_windows:
            identity += "|in windows"
        digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
        return f"{slug(self.track_name)}_{slug(self.prompt)}_seed{self.seed}{hears}_{digest}"


def _is_offset(seconds: float | None) -> bool:
    return seconds is None or 0 <= seconds < math.inf


def slug(text: str, *, max_length: int = 40, max_bytes: int = 80) -> str:
    """Letters and digits, few of them: file names end at 255 bytes."""
    slug = re.sub(r"[^\w]+", "-", text).strip("-")[:max_length]
    return slug.encode()[:max_bytes].decode(errors="ignore").rstrip("-")
