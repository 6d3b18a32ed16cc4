"""A cell: one clip to generate, named by its track, prompt and seed."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

# Lists the generated clips of a folder, one json object per line.
MANIFEST_NAME = "manifest.jsonl"


@dataclass(frozen=True)
class Cell:
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

    def __post_init__(self) -> None:
        """Check the range."""
        if self.track_offset_seconds is not None and self.track_offset_seconds < 0:
            raise ValueError(
                f"track_offset_seconds is {self.track_offset_seconds} for {self.track}; use 0 or "
                "more, or null for a random start."
            )

    @property
    def track_name(self) -> str:
        """The track without folder and suffix."""
        return Path(self.track).stem

    def file_stem(self) -> str:
        """A readable file name, unique among cells that differ."""
        identity = (
            f"{self.track}|{self.prompt}|{self.seed}|{self.num_frames}|{self.height}x{self.width}|"
            f"{self.track_offset_seconds}"
        )
        digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
        return f"{_slug(self.track_name)}_{_slug(self.prompt)}_seed{self.seed}_{digest}"


def _slug(text: str) -> str:
    """Letters and digits, at most 40 of them and 80 bytes: file names end at 255 bytes."""
    slug = re.sub(r"[^\w]+", "-", text).strip("-")[:40]
    return slug.encode()[:80].decode(errors="ignore").rstrip("-")
