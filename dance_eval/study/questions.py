"""What raters are asked about a pair of clips."""

from typing import NamedTuple


class Question(NamedTuple):
    """One question, answered with one side of the pair or a tie."""

    name: str
    """As in the vote files."""
    text: str
    """As raters read it."""


QUESTIONS = (
    Question("quality", "Which video has higher visual quality?"),
    Question("music", "Which video’s dance aligns better with the music?"),
    Question("realism", "Which video’s motion is more realistic?"),
    Question("complexity", "Which video’s dance is more complex?"),
)
"""Section C of the paper, word for word."""
