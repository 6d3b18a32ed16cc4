"""From files of votes to one document with everything that they say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, OpenUnitInterval, PositiveInt

from dance_eval.metrics.report import Document
from dance_eval.study.key import StudyError, StudyKey
from dance_eval.study.preferences import (
    ClipValues,
    agreement,
    correlations,
    strengths,
    unscored,
    win_rates,
)
from dance_eval.study.vote_statistics import Resampling, wilson_interval
from dance_eval.study.votes import Vote, read_votes, vote_files


@dataclass(frozen=True)
class AnalysisOptions:
    """How votes are analysed.

    Attributes:
        leave_out: Leave out raters who fail catches, repeats, either, or none at all.
        min_caught: Share of checked answers to catches that must name the intact clip.
        min_same: Share of repeated answers that must be the same as the first time.
        seed: Of the resamples.
        confidence: Of all intervals.
        resamples: Of each bootstrap.
    """

    leave_out: Literal["none", "catches", "repeats", "either"] = "none"
    min_caught: ClosedUnitInterval = 0.75
    min_same: ClosedUnitInterval = 0.5
    seed: int = 0
    confidence: OpenUnitInterval = 0.95
    resamples: PositiveInt = 2000


def analyse_votes(
    paths: Sequence[Path],
    key: StudyKey,
    *,
    metrics: Mapping[str, ClipValues],
    options: AnalysisOptions,
) -> tuple[Document, list[Vote]]:
    """Read, check and analyse files of votes and folders with them, with metrics beside them.

    Returns:
        The content of analysis.json, and the votes on pairs of systems that it is made of.

    Raises:
        StudyError: If no vote is left.
    """
    how = Resampling(options.seed, options.confidence, options.resamples)
    files, problems = vote_files(paths)
    votes, found = read_votes(files, key)
    problems = [*problems, *found, *unscored(metrics, key)]
    raters = check_raters(votes, key, options)
    left_out = [row["rater"] for row in raters if row["is_left_out"]]
    used = [v for v in votes if key.items[v.item].kind == "pair" and v.rater not in left_out]
    if not used:
        reasons = "; ".join(f"{p.where} {p.text}" for p in problems[:3])
        raise StudyError(f"No vote of the study {key.study} is left to analyse. {reasons}".strip())
    sides = [vote.is_left for vote in used if vote.is_left is not None]
    rules = {name: getattr(options, name) for name in ("leave_out", "min_caught", "min_same")}
    document: Document = {
        "study": key.study,
        "systems": key.systems,
        "questions": [list(question) for question in key.questions],
        "is_forced": key.is_forced,
        "options": asdict(how) | rules,
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


def check_raters(votes: Sequence[Vote], key: StudyKey, options: AnalysisOptions) -> list[Document]:
    """How carefully each rater answered, by catches and repeats, in the order of the plan.

    Returns:
        Per rater who gave an answer: ``num_votes`` in all, catches and repeats included;
        ``num_caught`` of ``num_catches`` checked answers that named the intact clip; ``num_same``
        of ``num_repeats`` answers that were those of the first time; ``share_left`` of the answers
        that were no tie; ``median_seconds`` from showing a pair to its last answer; which of both
        checks ``failed``; and whether the rater ``is_left_out`` for it.
    """
    by_rater: dict[str, dict[tuple[str, str], Vote]] = {}
    for vote in votes:
        by_rater.setdefault(vote.rater, {})[vote.item, vote.question] = vote
    rows = []
    for rater in key.plan:
        own = by_rater.get(rater, {})
        caught, same = [], []
        spent: dict[str, float] = {}
        for (name, question), vote in own.items():
            item = key.items[name]
            spent[name] = max(spent.get(name, 0.0), vote.milliseconds / 1000)
            if item.kind == "catch" and question in item.expected:
                caught.append(vote.score == 1.0)
            if item.kind == "repeat" and (item.of, question) in own:
                same.append(vote.score == own[item.of, question].score)
        failed = ["catches"] if sum(caught) < options.min_caught * len(caught) else []
        failed += ["repeats"] if sum(same) < options.min_same * len(same) else []
        sides = [vote.is_left for vote in own.values() if vote.is_left is not None]
        row: Document = {
            "rater": rater,
            "num_votes": len(own),
            "num_caught": sum(caught),
            "num_catches": len(caught),
            "num_same": sum(same),
            "num_repeats": len(same),
            "share_left": sum(sides) / len(sides) if sides else None,
            "median_seconds": median(spent.values()) if spent else None,
            "failed": failed,
            "is_left_out": options.leave_out in failed
            or (options.leave_out == "either" and bool(failed)),
        }
        rows += [row] if own else []
    return rows
