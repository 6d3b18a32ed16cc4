"""The sealed key: what the names on the page stand for. Raters must not see it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dance_eval.study.design import Item, Trial
from dance_eval.study.errors import StudyError
from dance_eval.study.questions import QUESTIONS, Question
from musicinfuser.atomic_files import write_text

VERSION = 1


@dataclass(frozen=True)
class ClipRecord:
    """Where a clip of the page comes from.

    Attributes:
        system: What made it.
        folder: As it was given.
        file: Relative to the folder.
        sha256: Of the file.
        track: As in the list of clips, or None.
        track_offset_seconds: Where in the track it starts.
        prompt: What it was asked to show, or None.
        seed: What it was generated with, or None.
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
        questions: What was asked.
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
    questions: tuple[Question, ...] = QUESTIONS

    def pair_of(self, item: str) -> str:
        """The pair behind an item: itself, or what a repeat shows again."""
        return self.items[item].of or item

    def systems_of(self, item: str) -> tuple[str, str]:
        """The systems of an item's first and second clip."""
        found = self.items[item]
        return self.clips[found.first].system, self.clips[found.second].system

    def write(self, path: Path) -> None:
        """Write the key, whole or not at all."""
        content: dict[str, Any] = {"version": VERSION} | asdict(self)
        content["questions"] = [list(question) for question in self.questions]
        content["plan"] = {
            rater: [[t.item, t.left, t.right] for t in trials]
            for rater, trials in self.plan.items()
        }
        write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def opaque_name(secret: str, text: str, *, num_bytes: int = 5) -> str:
    """A name that nobody can trace back without the secret."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogateescape"), key=secret.encode(), digest_size=num_bytes
    ).hexdigest()


def read_key(path: Path) -> StudyKey:
    """Read a sealed key.

    Raises:
        StudyError: If the file is missing, no key, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != VERSION:
            raise StudyError(f"{path}: is a key of another version of this program.")
        return _key(content)
    except StudyError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path}: cannot be read as the key of a study ({type(error).__name__}); "
            "`evaluate.py study build` writes it beside the folder of the page."
        ) from error


def _key(content: Mapping[str, Any]) -> StudyKey:
    return StudyKey(
        **{
            **content,
            "questions": tuple(Question(*question) for question in content["questions"]),
            "clips": {name: ClipRecord(**clip) for name, clip in content["clips"].items()},
            "items": {
                name: Item(**{**item, "expected": tuple(item["expected"])})
                for name, item in content["items"].items()
            },
            "plan": {
                rater: [Trial(*trial) for trial in trials]
                for rater, trials in content["plan"].items()
            },
        }
    )
