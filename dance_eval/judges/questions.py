"""The eleven questions of Table 10, one per call, and the averages made of their answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

import yaml

from dance_eval.judges.scores import authors_score
from musicinfuser.setting_checks import check_choice

Wording = Literal["paper", "authors"]

DANCE, VIDEO, PROMPT = "Dance Quality", "Video Quality", "Prompt Alignment"
BEAT, STYLE = "Beat Alignment", "Style Alignment"
MUSIC_QUESTIONS = (BEAT, STYLE)
"""The two whose answers must depend on the sound."""

_FILE = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        name: As Table 10 names it, e.g. ``"Beat Alignment"``.
        text: What the judge is asked.
        read: Gives what an answer says, None if it says nothing that counts.
    """

    name: str
    text: str
    read: Callable[[str], object | None] = field(default=authors_score, compare=False)

    @property
    def key(self) -> str:
        """The name in metrics.json, e.g. ``"beat_alignment"``."""
        return key_of(self.name)


def key_of(name: str) -> str:
    """A name of Table 10 as it stands in metrics.json."""
    return name.lower().replace(" ", "_")


def table_10() -> dict[str, dict[str, str]]:
    """Group -> name -> text, to the letter, in the paper's order."""
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


GROUPS = {group: tuple(texts) for group, texts in table_10().items()}
"""Names of the questions by group: five on the dance, three on the video, three on the prompt."""


def questions(prompt: str | None, *, wording: Wording = "paper") -> list[Question]:
    """The eleven questions that one clip is judged by, or eight without a prompt.

    ``"paper"`` is the wording of Table 10, ``"authors"`` that of the authors' code, which says
    "0-10 where:" in the eight questions about dance and video.
    """
    check_choice("wording", wording, get_args(Wording))
    asked = []
    for group, texts in table_10().items():
        for name, text in texts.items():
            if group == PROMPT:
                if prompt is None:
                    continue
                # Not str.format: prompts may hold braces.
                text = text.replace("{prompt}", prompt)
            elif wording == "authors":
                text = text.replace(" where:", " 0-10 where:", 1)
            asked.append(Question(name, text))
    return asked


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Averages of one clip's scores, in [0, 10] by the question's name, as the paper forms them.

    ``dance_quality`` (mean of 5), ``video_quality`` (of 3) and ``prompt_alignment`` (of 3), each
    where all its scores are there; ``overall`` is the mean of the eight scores of dance and video,
    not of the two averages.
    """
    sets = {key_of(group): names for group, names in GROUPS.items()}
    sets["overall"] = GROUPS[DANCE] + GROUPS[VIDEO]
    return {
        key: fmean(scores[name] for name in names)
        for key, names in sets.items()
        if all(name in scores for name in names)
    }
