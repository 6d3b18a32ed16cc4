"""Answers that were given elsewhere, read from a file of JSON lines."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dance_eval.judges.judge import Answer, Judge, JudgeError, JudgeInput
from dance_eval.judges.questions import Question
from musicinfuser.label_files import LabelError, read_json_lines


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
        self._records: dict[Any, dict[str, Any]] = {}
        try:
            lines = read_json_lines(self.answers)
            self._digest = hashlib.sha256(self.answers.read_bytes()).hexdigest()
        except LabelError as error:
            if error.line is None:
                raise JudgeError(f"{self.answers}: {error.reason}") from error
            raise self._unreadable(error.line, f": {error.reason}") from error
        for number, record in lines:
            try:
                clips = [(str(c["video"]), str(c.get("sound", "own"))) for c in record["clips"]]
                question = str(record["question"])
                if not isinstance(record["text"], str):
                    raise TypeError("text is no text")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                why = f" ({type(error).__name__}: {error}); mend or delete the line."
                raise self._unreadable(number, why) from error
            known = self._records.setdefault((*clips, question), record)
            if known["text"] != record["text"]:
                raise JudgeError(
                    f"{self.answers}:{number}: answers {question!r} about the same clip a second "
                    "time and differently; keep the answers of one judge."
                )

    def _unreadable(self, number: int, why: str) -> JudgeError:
        return JudgeError(f"{self.answers}:{number}: is no recorded answer{why}")

    @property
    def identity(self) -> dict[str, Any]:
        """The content of the file."""
        return {"recorded": self._digest}

    def check(self) -> None:
        """`JudgeError` if there are no answers at all."""
        if not self._records:
            raise JudgeError(f"{self.answers}: holds no answers; name a file that does.")

    def ask(self, clips: Sequence[JudgeInput], question: Question) -> Answer:
        """The recorded answer; `JudgeError` without one to this wording and this sound."""
        by_content = (*((clip.sha256, clip.sound) for clip in clips), question.name)
        by_name = (*((clip.name, clip.sound) for clip in clips), question.name)
        record = self._records.get(by_content) or self._records.get(by_name)
        if record is None:
            asked = ", ".join(f"{clip.name} with sound {clip.sound!r}" for clip in clips)
            raise JudgeError(f"{self.answers}: has no answer to {question.name!r} about {asked}.")
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
