"""Two clips of the same cell beside each other: which is better, asked in both orders."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from dance_eval.judges.judge import Answer, Judge, Shown
from dance_eval.judges.questions import Question

Choice = Literal["first", "second"]

_LETTER = re.compile(r"(?:video\s+)?([AB])\.?", re.IGNORECASE)


def choice_of(text: str) -> Choice | None:
    """Which of the two an answer names, if it does nothing else: "A", "**B**", "Video A."."""
    found = _LETTER.fullmatch(text.replace("*", "").strip())
    if found is None:
        return None
    return "first" if found.group(1).upper() == "A" else "second"


PAIR_QUESTIONS = tuple(
    Question(name, f"{text} Output only the letter A or B.", choice_of)
    for name, text in (
        ("Visual Quality", "Which video has higher visual quality?"),
        ("Music Alignment", "Which video's dance aligns better with the music?"),
        ("Motion Realism", "Which video's motion is more realistic?"),
        ("Dance Complexity", "Which video's dance is more complex?"),
    )
)
"""The four questions of the paper's user study (section 5); the last sentence is ours."""


@dataclass(frozen=True)
class PairAnswer:
    """Both answers to one question about two clips.

    Attributes:
        question: The question.
        forward: With the first system's clip shown first.
        backward: With it shown second.
    """

    question: Question
    forward: Answer
    backward: Answer

    @property
    def cut_off(self) -> str | None:
        """Why one of the answers ends before its end; None if both are whole."""
        return self.forward.cut_off or self.backward.cut_off

    @property
    def wins(self) -> float | None:
        """Share of the two answers that prefer the first system; None if one cannot be read."""
        choices = choice_of(self.forward.text), choice_of(self.backward.text)
        if None in choices:
            return None
        return ((choices[0] == "first") + (choices[1] == "second")) / 2

    @property
    def first_places(self) -> float | None:
        """Share of the two answers that prefer what is shown first; 0.5 is without bias."""
        choices = choice_of(self.forward.text), choice_of(self.backward.text)
        return None if None in choices else choices.count("first") / 2


def compare(
    judge: Judge,
    first: Shown,
    second: Shown,
    *,
    questions: Sequence[Question] = PAIR_QUESTIONS,
) -> list[PairAnswer]:
    """Ask all questions about two clips in both orders, at once as far as the judge takes it.

    Raises:
        JudgeError: If an answer is not to be had.
    """
    orders = ((first, second), (second, first))
    with ThreadPoolExecutor(judge.concurrency) as pool:
        pending = [pool.submit(judge.ask, order, q) for q in questions for order in orders]
        try:
            answers = [future.result() for future in pending]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [
        PairAnswer(question, answers[2 * index], answers[2 * index + 1])
        for index, question in enumerate(questions)
    ]
