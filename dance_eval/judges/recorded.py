"""Answers that were given elsewhere, read from a file of JSON lines."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dance_eval.judges.judge import Answer, Judge, JudgeError, Shown
from dance_eval.judges.questions import Question
from musicinfuser.label_files import LabelError, read_json_lines

Key = tuple[tuple[tuple[str, str], ...], str]


class RecordedJudge(Judge):
    """Looks answers up.

    A line is what `answer_cache` writes: ``{"clips": [{"video", "sound"}], "question", "text"}``
    with any further keys. ``video`` is the SHA-256 of the clip's file or, in a file written by
    hand, its name in the list of clips; ``sound`` is ``"own"`` (also if absent) or a control;
    ``question`` is the name of the question, e.g. ``"Beat Alignment"``; ``asked``,
    ``sound_sha256``, ``positions`` and ``cut_off`` count where they are there.

    Args:
        answers: The file.

    Raises:
        JudgeError: If it cannot be read, or has two answers to one question.
    """

    def __init__(self, *, answers: Path) -> None:
        self.answers = Path(answers)
        self._lines: dict[Key, dict[str, Any]] = {}
        try:
            records = read_json_lines(self.answers)
            self._digest = hashlib.sha256(self.answers.read_bytes()).hexdigest()
        except LabelError as error:
            if error.line is None:
                raise JudgeError(f"{self.answers}: {error.reason}") from error
            raise JudgeError(
                f"{self.answers}:{error.line}: is no recorded answer: {error.reason}"
            ) from error
        for number, record in records:
            self._add(record, number)

    def _add(self, record: dict[str, Any], number: int) -> None:
        try:
            clips = tuple((str(c["video"]), str(c.get("sound", "own"))) for c in record["clips"])
            key = (clips, str(record["question"]))
            if not isinstance(record["text"], str):
                raise TypeError("text is no text")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JudgeError(
                f"{self.answers}:{number}: is no recorded answer ({type(error).__name__}: {error});"
                " mend or delete the line."
            ) from error
        if self._lines.setdefault(key, record)["text"] != record["text"]:
            raise JudgeError(
                f"{self.answers}:{number}: answers {key[1]!r} about the same clip a second time "
                "and differently; keep the answers of one judge."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The content of the file."""
        return {"recorded": self._digest}

    def check(self) -> None:
        """See whether there are answers at all.

        Raises:
            JudgeError: If there are none.
        """
        if not self._lines:
            raise JudgeError(f"{self.answers}: holds no answers; name a file that does.")

    def ask(self, clips: Sequence[Shown], question: Question) -> Answer:
        """The recorded answer.

        Raises:
            JudgeError: If there is none, or it was given to another wording or another sound.
        """
        for names in ([clip.sha256 for clip in clips], [clip.name for clip in clips]):
            sounds = (clip.sound for clip in clips)
            key = (tuple(zip(names, sounds, strict=True)), question.name)
            if key in self._lines:
                break
        else:
            heard = ", ".join(f"{clip.name} with sound {clip.sound!r}" for clip in clips)
            raise JudgeError(f"{self.answers}: has no answer to {question.name!r} about {heard}.")
        record = self._lines[key]
        if record.get("asked", question.text) != question.text:
            raise JudgeError(
                f"{self.answers}: its answer to {question.name!r} about {clips[0].name} is one to "
                "another wording; choose the `wording` that was asked."
            )
        for clip, kept in zip(clips, record["clips"], strict=True):
            if kept.get("sound_sha256", clip.sound_sha256) != clip.sound_sha256:
                raise JudgeError(
                    f"{self.answers}: its answer about {clip.name} was given to another sound "
                    f"{clip.sound!r}; ask the judge again."
                )
        positions = tuple(record.get("positions") or ())
        return Answer(record["text"], positions, record.get("cut_off"))
