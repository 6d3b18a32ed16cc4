"""What a judge is given, what it answers, and what it is."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dance_eval.judges.questions import Question
from dance_eval.judges.scores import Position, authors_score, expected_score, strict_score
from musicinfuser.errors import UserError
from musicinfuser.media.audio import wav_bytes

SOUND_RATE_HZ = 16_000
"""What the audio encoders of today's judges take."""
CLIP_NAMES = ("A", "B")
"""What a judge's prompt calls two clips that are compared."""


class JudgeError(UserError):
    """A judge cannot be asked or gave no answer. The message is one sentence."""


@dataclass(frozen=True, eq=False)
class JudgeInput:
    """One clip for a judge: a picture, and a sound that need not be its own.

    Attributes:
        path: A video; its own sound is left out.
        sha256: Of that file.
        waveform: float32 mono in [-1, 1] at `SOUND_RATE_HZ`, shape (S,).
        name: The clip's name, for messages and recorded answers.
        sound: ``"own"``, or the name of the control whose sound this is.
    """

    path: Path
    sha256: str
    waveform: torch.Tensor
    name: str
    sound: str = "own"

    @cached_property
    def wav(self) -> bytes:
        """The sound as a wav file."""
        return wav_bytes(self.waveform, rate_hz=SOUND_RATE_HZ)

    @cached_property
    def sound_sha256(self) -> str:
        """Of the sound as a wav file."""
        return hashlib.sha256(self.wav).hexdigest()


@dataclass(frozen=True)
class Answer:
    """The answer of a judge.

    Attributes:
        text: Word for word.
        positions: Log-probabilities at each token of the answer, where the judge gives them.
        cut_off: Why the answer ends before its end, such as "finish_reason is 'length' at
            max_tokens 32"; None for a whole one.
    """

    text: str
    positions: Sequence[Position] = ()
    cut_off: str | None = None

    @property
    def score(self) -> float | None:
        """By the authors' rule."""
        return authors_score(self.text)

    @property
    def strict_score(self) -> float | None:
        """By the stricter rule."""
        return strict_score(self.text)

    @property
    def expected_score(self) -> float | None:
        """By the probabilities of the digits; None where they do not tell."""
        return expected_score(self.text, self.positions)


class Judge(ABC):
    """A model that answers questions about clips. It may be asked from several threads."""

    concurrency: int = 1
    """How many questions it takes at once."""

    @abstractmethod
    def check(self) -> None:
        """See at little cost whether it can be asked at all; else `JudgeError` with what to do."""

    @abstractmethod
    def ask(self, clips: Sequence[JudgeInput], question: Question) -> Answer:
        """Put one question about a clip, or about two that are compared; else `JudgeError`."""

    def ask_all(self, calls: Sequence[tuple[Sequence[JudgeInput], Question]]) -> list[Answer]:
        """Put many questions, at once as far as the judge takes it; the first failure ends it."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            pending = [pool.submit(self.ask, clips, question) for clips, question in calls]
            try:
                return [future.result() for future in pending]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything about the judge that its answers depend on, as plain JSON values."""
