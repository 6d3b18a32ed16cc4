"""Votes on pairs as tables of numbers: win rates, tests, agreement and strengths."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dance_eval.study.agreement import alpha_interval, krippendorff_alpha
from dance_eval.study.bradley_terry import bradley_terry
from dance_eval.study.key import StudyKey
from dance_eval.study.votes import Vote
from dance_eval.study.win_rates import (
    clustered_interval,
    drawn_weights,
    holm,
    sign_test,
    wilson_interval,
)

ResultRow = dict[str, Any]


@dataclass(frozen=True)
class Analysing:
    """What all statistics of one analysis share.

    Attributes:
        seed: Of all resamples.
        confidence: Of all intervals, in (0, 1).
        num_resamples: Of all bootstraps.
    """

    seed: int = 0
    confidence: float = 0.95
    num_resamples: int = 2000


def pair_votes(votes: Sequence[Vote], key: StudyKey) -> list[Vote]:
    """Votes on pairs of systems as they were shown first."""
    return [vote for vote in votes if key.items[vote.item].kind == "pair"]


def vote_matrices(votes: Sequence[Vote]) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Sums and counts of scores, (R, I) each, with the names of raters and items."""
    raters = list(dict.fromkeys(vote.rater for vote in votes))
    items = list(dict.fromkeys(vote.item for vote in votes))
    at_rater = {name: number for number, name in enumerate(raters)}
    at_item = {name: number for number, name in enumerate(items)}
    scores = np.zeros((len(raters), len(items)))
    counts = np.zeros_like(scores)
    for vote in votes:
        place = at_rater[vote.rater], at_item[vote.item]
        scores[place] += vote.score
        counts[place] += 1
    return scores, counts, raters, items


def win_rates(votes: Sequence[Vote], key: StudyKey, how: Analysing) -> list[ResultRow]:
    """For every two systems and question, how often the first was preferred.

    The sign test is done over votes, which it takes as independent, and over raters, each of whom
    counts once, for the system they preferred more often. Holm's adjustment is over the questions
    of the same two systems.
    """
    rows: list[ResultRow] = []
    for systems in itertools.combinations(key.systems, 2):
        family: list[ResultRow] = []
        for question, _ in key.questions:
            own = [
                vote
                for vote in votes
                if vote.question == question and key.systems_of(vote.item) == systems
            ]
            if own:
                family.append(_win_rate(own, systems, question, how))
        for test in ("votes", "raters"):
            adjusted = holm([row[f"p_{test}"] for row in family])
            for row, value in zip(family, adjusted, strict=True):
                row[f"p_{test}_holm"] = value
        rows += family
    return rows


def _win_rate(
    own: Sequence[Vote], systems: tuple[str, str], question: str, how: Analysing
) -> ResultRow:
    scores, counts, _, _ = vote_matrices(own)
    each = [vote.score for vote in own]
    row: ResultRow = {
        "system": systems[0],
        "against": systems[1],
        "question": question,
        "win_rate": sum(each) / len(each),
        "wins": each.count(1.0),
        "ties": each.count(0.5),
        "losses": each.count(0.0),
        "raters": len(scores),
        "pairs": scores.shape[1],
        "wilson": wilson_interval(sum(each), len(each), confidence=how.confidence),
    }
    for clusters in ("raters", "items", "both"):
        row[clusters + "_interval"] = clustered_interval(
            scores,
            counts,
            clusters=clusters,
            seed=how.seed,
            name=f"{systems}/{question}",
            confidence=how.confidence,
            num_resamples=how.num_resamples,
        )
    leaning = scores.sum(axis=1) - counts.sum(axis=1) / 2
    row["p_votes"] = sign_test(each.count(1.0), each.count(0.0))
    row["p_raters"] = sign_test(int((leaning > 0).sum()), int((leaning < 0).sum()))
    return row


def agreement(votes: Sequence[Vote], key: StudyKey, how: Analysing) -> list[ResultRow]:
    """Krippendorff's alpha of each question, over pairs of clips.

    ``alpha`` takes first, tie and second as three different answers (nominal data),
    ``alpha_ordered`` a tie as the middle between the others (interval data). Without ties they are
    equal.
    """
    levels = np.array([0.0, 0.5, 1.0])
    rows = []
    for question, _ in key.questions:
        own = [vote for vote in votes if vote.question == question]
        places = {name: i for i, name in enumerate(dict.fromkeys(vote.item for vote in own))}
        values = np.zeros((len(places), 3))
        for vote in own:
            values[places[vote.item], int(2 * vote.score)] += 1
        row: ResultRow = {"question": question, "votes": len(own)}
        row["pairs_with_two_votes"] = int((values.sum(axis=1) >= 2).sum())
        for kind, numbers in (("alpha", None), ("alpha_ordered", levels)):
            row[kind] = krippendorff_alpha(values, levels=numbers) if len(values) else None
        row["alpha_interval"] = (
            alpha_interval(
                values,
                seed=how.seed,
                name=question,
                confidence=how.confidence,
                num_resamples=how.num_resamples,
            )
            if len(values)
            else None
        )
        rows.append(row)
    return rows


def strengths(votes: Sequence[Vote], key: StudyKey, how: Analysing) -> list[ResultRow]:
    """Bradley-Terry strengths of more than two systems, with an interval that draws raters.

    Where draws have no finite estimate, ``share_finite`` says how many had one; the interval is
    that of these.
    """
    if len(key.systems) < 3:
        return []
    rows: list[ResultRow] = []
    for question, _ in key.questions:
        own = [vote for vote in votes if vote.question == question]
        wins = _wins_by_rater(own, key)
        if not len(wins):
            continue
        found = bradley_terry(wins.sum(axis=0))
        drawn = [
            bradley_terry(np.tensordot(weights, wins, axes=1))
            for weights in _rater_weights(len(wins), question, how)
        ]
        finite = [values for values in drawn if values is not None]
        tails = [(1 - how.confidence) / 2, (1 + how.confidence) / 2]
        ends = np.quantile(np.array(finite), tails, axis=0) if finite else None
        for number, system in enumerate(key.systems):
            rows.append(
                {
                    "question": question,
                    "system": system,
                    "strength": None if found is None else float(found[number]),
                    "interval": None
                    if found is None or ends is None
                    else (float(ends[0, number]), float(ends[1, number])),
                    "share_finite": len(finite) / len(drawn) if drawn else 0.0,
                }
            )
    return rows


def _wins_by_rater(votes: Sequence[Vote], key: StudyKey) -> np.ndarray:
    """(R, S, S), how often each rater preferred one system to another."""
    raters = {name: i for i, name in enumerate(dict.fromkeys(vote.rater for vote in votes))}
    at = {name: number for number, name in enumerate(key.systems)}
    wins = np.zeros((len(raters), len(at), len(at)))
    for vote in votes:
        first, second = (at[name] for name in key.systems_of(vote.item))
        wins[raters[vote.rater], first, second] += vote.score
        wins[raters[vote.rater], second, first] += 1 - vote.score
    return wins


def _rater_weights(num_raters: int, question: str, how: Analysing) -> np.ndarray:
    """(B, R), how often each rater is drawn; few draws, since each is a fit."""
    return drawn_weights(
        num_raters,
        num_drawn=min(how.num_resamples, 500),
        seed=how.seed,
        name=question,
        purpose="study strengths",
    )
