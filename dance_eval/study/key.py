"""The sealed key: what the names on the page stand for. Raters must not see it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError

VERSION = 1
QUESTIONS = (
    ("quality", "Which video has higher visual quality?"),
    ("music", "Which video’s dance aligns better with the music?"),
    ("realism", "Which video’s motion is more realistic?"),
    ("complexity", "Which video’s dance is more complex?"),
)
"""Names as in the vote files, and section C of the paper, word for word, as raters read it."""


class StudyError(UserError):
    """A study cannot be built or analysed as asked. The message is one sentence."""


@dataclass(frozen=True)
class Item:
    """Two clips to be compared, under a name that says nothing.

    Attributes:
        kind: A ``pair`` of systems, the same pair shown once more (``repeat``), or an intact clip
            against a spoilt copy (``catch``).
        first: Name of the clip of the first system, or of the intact one.
        second: Name of the other clip.
        of: The repeated pair; empty for others.
        expected: Questions that a careful rater answers with the first clip; catches only.
    """

    kind: Literal["pair", "repeat", "catch"]
    first: str
    second: str
    of: str = ""
    expected: tuple[str, ...] = ()


class Trial(NamedTuple):
    """One item as one rater sees it: the names of the item and of the clips on both sides."""

    item: str
    left: str
    right: str


@dataclass(frozen=True)
class ClipRecord:
    """Where a clip of the page comes from; what its list of clips has is as it stands there.

    Attributes:
        folder: As it was given.
        sha256: Of the file.
        num_frames: How many of the study's frames it has.
        sound_of: The system whose clip gave the sound.
        spoiling: How it was spoilt for a catch; else empty.
    """

    system: str
    folder: str
    file: str
    sha256: str
    track: str | None
    track_offset_seconds: float
    prompt: str | None
    seed: int | None
    num_frames: int
    sound_of: str
    spoiling: str = ""


@dataclass(frozen=True)
class StudyKey:
    """Everything that the analysis needs besides the votes.

    Attributes:
        study: Name of the study; in every row of its votes.
        seed: Of all draws.
        secret: What the names on the page are derived from.
        request: Digest of what was asked for, by which a repeated command knows its study.
        is_forced: Whether ties were not allowed.
        systems: In the order in which they were given.
        form: Height, width and rate of the clips.
        clips: By their names on the page.
        items: By their names on the page.
        plan: Trials of each rater, in order.
        notes: What was left out or changed, one sentence each.
        questions: What was asked: name and text.
    """

    study: str
    seed: int
    secret: str
    request: str
    is_forced: bool
    systems: list[str] = field(default_factory=list)
    form: dict[str, float] = field(default_factory=dict)
    clips: dict[str, ClipRecord] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    plan: dict[str, list[Trial]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    questions: tuple[tuple[str, str], ...] = QUESTIONS

    def systems_of(self, item: str) -> tuple[str, str]:
        """The systems of an item's first and second clip."""
        found = self.items[item]
        return self.clips[found.first].system, self.clips[found.second].system

    def write(self, path: Path) -> None:
        """Write the key, whole or not at all."""
        content = {"version": VERSION} | asdict(self)
        write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def opaque_name(secret: str, text: str, *, num_bytes: int = 5) -> str:
    """A name that nobody can trace back without the secret."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogateescape"), key=secret.encode(), digest_size=num_bytes
    ).hexdigest()


def read_key(path: Path) -> StudyKey:
    """Read a sealed key; `StudyError` if the file is missing, no key, or of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != VERSION:
            raise StudyError(f"{path}: is a key of another version of this program.")
        return TypeAdapter(StudyKey).validate_python(content)
    except StudyError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path}: cannot be read as the key of a study ({type(error).__name__}); "
            "`evaluate.py study build` writes it beside the folder of the page."
        ) from error
