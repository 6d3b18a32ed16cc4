"""How carefully each rater answered, by catches and repeats."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dance_eval.study.key import StudyKey
from dance_eval.study.votes import Vote


@dataclass(frozen=True)
class RaterCheck:
    """What one rater did.

    Attributes:
        rater: Who.
        num_votes: Answers in all, catches and repeats included.
        num_caught: Checked answers to catches that named the intact clip.
        num_catches: Checked answers to catches.
        num_same: Answers to repeats that were those of the first time.
        num_repeats: Answers to repeats whose first time was answered too.
        share_left: Of the answers that were no tie; None without any.
        median_seconds: From showing a pair to the last answer; None without answers.
    """

    rater: str
    num_votes: int
    num_caught: int
    num_catches: int
    num_same: int
    num_repeats: int
    share_left: float | None
    median_seconds: float | None

    def fails(self, *, min_caught: float, min_same: float) -> tuple[bool, bool]:
        """Whether the shares of catches and of repeats lie below what is asked for."""
        return (
            self.num_caught < min_caught * self.num_catches,
            self.num_same < min_same * self.num_repeats,
        )


def check_raters(votes: Sequence[Vote], key: StudyKey) -> list[RaterCheck]:
    """Check every rater who gave an answer, in the order of the plan."""
    by_rater: dict[str, dict[tuple[str, str], Vote]] = {}
    for vote in votes:
        by_rater.setdefault(vote.rater, {})[vote.item, vote.question] = vote
    return [_check(rater, by_rater[rater], key) for rater in key.plan if rater in by_rater]


def _check(rater: str, own: Mapping[tuple[str, str], Vote], key: StudyKey) -> RaterCheck:
    caught, same = [], []
    spent: dict[str, float] = {}
    for (name, question), vote in own.items():
        item = key.items[name]
        spent[name] = max(spent.get(name, 0.0), vote.milliseconds / 1000)
        if item.kind == "catch" and question in item.expected:
            caught.append(vote.score == 1.0)
        if item.kind == "repeat" and (item.of, question) in own:
            same.append(vote.score == own[item.of, question].score)
    sides = [vote.is_left for vote in own.values() if vote.is_left is not None]
    return RaterCheck(
        rater=rater,
        num_votes=len(own),
        num_caught=sum(caught),
        num_catches=len(caught),
        num_same=sum(same),
        num_repeats=len(same),
        share_left=sum(sides) / len(sides) if sides else None,
        median_seconds=statistics.median(spent.values()) if spent else None,
    )
