"""From files of votes to one document with everything that they say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dance_eval.study.errors import StudyError
from dance_eval.study.key import StudyKey
from dance_eval.study.metric_values import ClipValues, correlations, unscored
from dance_eval.study.preferences import (
    Analysing,
    agreement,
    pair_votes,
    strengths,
    win_rates,
)
from dance_eval.study.rater_checks import check_raters
from dance_eval.study.votes import Problem, Vote, read_votes, vote_files
from dance_eval.study.win_rates import wilson_interval

Document = dict[str, Any]


@dataclass(frozen=True)
class RaterRules:
    """Which raters count.

    Attributes:
        leave_out: Raters who fail catches, repeats, either, or none at all.
        min_caught: Share of checked answers to catches that must name the intact clip.
        min_same: Share of repeated answers that must be the same as the first time.
    """

    leave_out: Literal["none", "catches", "repeats", "either"] = "none"
    min_caught: float = 0.75
    min_same: float = 0.5


def analyse_votes(
    paths: Sequence[Path],
    key: StudyKey,
    *,
    metrics: Mapping[str, ClipValues],
    rules: RaterRules,
    how: Analysing,
) -> tuple[Document, list[Vote]]:
    """Read, check and analyse votes.

    Args:
        paths: Files of votes and folders with them.
        key: The study.
        metrics: Automatic metrics to hold against the votes.
        rules: Which raters count.
        how: Intervals and their seed.

    Returns:
        The content of analysis.json, and the votes on pairs of systems that it is made of.

    Raises:
        StudyError: If no vote is left.
    """
    files, problems = vote_files(paths)
    votes, found = read_votes(files, key)
    problems = [*problems, *found, *unscored(metrics, key)]
    raters, left_out = _raters(votes, key, rules)
    used = [vote for vote in pair_votes(votes, key) if vote.rater not in left_out]
    if not used:
        reasons = "; ".join(f"{p.where} {p.text}" for p in problems[:3])
        raise StudyError(f"No vote of the study {key.study} is left to analyse. {reasons}".strip())
    sides = [vote.is_left for vote in used if vote.is_left is not None]
    document: Document = {
        "study": key.study,
        "systems": key.systems,
        "questions": [list(question) for question in key.questions],
        "is_forced": key.is_forced,
        "options": asdict(how) | asdict(rules),
        "files": len(files),
        "votes": len(used),
        "raters_counted": len({vote.rater for vote in used}),
        "raters_left_out": left_out,
        "problems": [asdict(problem) for problem in problems],
        "problem_counts": dict(Counter(problem.kind for problem in problems)),
        "raters": raters,
        "left_side": {
            "share": sum(sides) / len(sides) if sides else None,
            "wilson": wilson_interval(sum(sides), len(sides), confidence=how.confidence)
            if sides
            else None,
        },
        "win_rates": win_rates(used, key, how),
        "agreement": agreement(used, key, how),
        "strengths": strengths(used, key, how),
        "correlations": correlations(metrics, used, key, how),
        "built_with_notes": key.notes,
    }
    return document, used


def _raters(
    votes: Sequence[Vote], key: StudyKey, rules: RaterRules
) -> tuple[list[Document], list[str]]:
    """One row per rater, and the ids of those who do not count."""
    rows, left_out = [], []
    for check in check_raters(votes, key):
        fails = check.fails(min_caught=rules.min_caught, min_same=rules.min_same)
        failed = [
            name for name, is_failed in zip(("catches", "repeats"), fails, strict=True) if is_failed
        ]
        is_out = rules.leave_out in failed or (rules.leave_out == "either" and bool(failed))
        if is_out:
            left_out.append(check.rater)
        rows.append(asdict(check) | {"failed": failed, "is_left_out": is_out})
    return rows, left_out


def grave_problems(document: Document) -> list[Problem]:
    """Problems for which rows were left out."""
    return [Problem(**problem) for problem in document["problems"] if problem["is_grave"]]
