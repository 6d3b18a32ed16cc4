"""Votes on pairs as tables of numbers: win rates, tests, agreement and strengths."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from dance_eval.metrics.report import Document
from dance_eval.study.key import StudyKey
from dance_eval.study.vote_statistics import (
    Resampling,
    alpha_interval,
    bradley_terry,
    clustered_interval,
    holm,
    krippendorff_alpha,
    sign_test,
    wilson_interval,
)
from dance_eval.study.votes import Vote


def win_rates(votes: Sequence[Vote], key: StudyKey, how: Resampling) -> list[Document]:
    """For every two systems and question, how often the first was preferred.

    The sign test is done over votes, which it takes as independent, and over raters, each of whom
    counts once, for the system they preferred more often. Holm's adjustment is over the questions
    of the same two systems.
    """
    rows: list[Document] = []
    for systems in itertools.combinations(key.systems, 2):
        family: list[Document] = []
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
    own: Sequence[Vote], systems: tuple[str, str], question: str, how: Resampling
) -> Document:
    each = [vote.score for vote in own]
    places = _numbers(vote.rater for vote in own), _numbers(vote.item for vote in own)
    # Sums and counts of scores by rater and item.
    scores, counts = np.zeros((2, *map(len, places)))
    for vote in own:
        place = places[0][vote.rater], places[1][vote.item]
        scores[place] += vote.score
        counts[place] += 1
    row: Document = {
        "system": systems[0],
        "against": systems[1],
        "question": question,
        "win_rate": sum(each) / len(each),
        "wins": each.count(1.0),
        "ties": each.count(0.5),
        "losses": each.count(0.0),
        "raters": len(places[0]),
        "pairs": len(places[1]),
        "wilson": wilson_interval(sum(each), len(each), confidence=how.confidence),
    }
    for clusters in ("raters", "items", "both"):
        row[f"{clusters}_interval"] = clustered_interval(
            scores, counts, how, clusters=clusters, name=f"{systems}/{question}"
        )
    leaning = scores.sum(axis=1) - counts.sum(axis=1) / 2
    row["p_votes"] = sign_test(each.count(1.0), each.count(0.0))
    row["p_raters"] = sign_test(int((leaning > 0).sum()), int((leaning < 0).sum()))
    return row


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """Each name's place among the different ones."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def agreement(votes: Sequence[Vote], key: StudyKey, how: Resampling) -> list[Document]:
    """Krippendorff's alpha of each question, over pairs of clips.

    ``alpha`` takes first, tie and second as three different answers (nominal data),
    ``alpha_ordered`` a tie as the middle between the others (interval data). Without ties they are
    equal.
    """
    rows = []
    for question, _ in key.questions:
        own = [vote for vote in votes if vote.question == question]
        places = _numbers(vote.item for vote in own)
        values = np.zeros((len(places), 3))
        for vote in own:
            values[places[vote.item], int(2 * vote.score)] += 1
        rows.append(
            {
                "question": question,
                "votes": len(own),
                "pairs_with_two_votes": int((values.sum(axis=1) >= 2).sum()),
                "alpha": krippendorff_alpha(values),
                "alpha_ordered": krippendorff_alpha(values, levels=np.array([0.0, 0.5, 1.0])),
                "alpha_interval": alpha_interval(values, how, name=question),
            }
        )
    return rows


def strengths(votes: Sequence[Vote], key: StudyKey, how: Resampling) -> list[Document]:
    """Bradley-Terry strengths of more than two systems, with an interval that draws raters.

    Where draws have no finite estimate, ``share_finite`` says how many had one; the interval is
    that of these.
    """
    rows: list[Document] = []
    for question, _ in key.questions if len(key.systems) > 2 else ():
        own = [vote for vote in votes if vote.question == question]
        if not own:
            continue
        wins = _wins_by_rater(own, key)
        found = bradley_terry(wins.sum(axis=0))
        few = replace(how, num_resamples=min(how.num_resamples, 500))  # each is a fit
        weights = few.weights(len(wins), name=question, purpose="study strengths")
        drawn = [bradley_terry(np.tensordot(own, wins, axes=1)) for own in weights]
        finite = [values for values in drawn if values is not None]
        for number, system in enumerate(key.systems):
            interval = how.interval([values[number] for values in finite])
            rows.append(
                {
                    "question": question,
                    "system": system,
                    "strength": None if found is None else float(found[number]),
                    "interval": None if found is None else interval,
                    "share_finite": len(finite) / len(drawn),
                }
            )
    return rows


def _wins_by_rater(votes: Sequence[Vote], key: StudyKey) -> np.ndarray:
    """(R, S, S), how often each rater preferred one system to another."""
    raters, systems = _numbers(vote.rater for vote in votes), _numbers(key.systems)
    wins = np.zeros((len(raters), len(systems), len(systems)))
    for vote in votes:
        first, second = (systems[name] for name in key.systems_of(vote.item))
        wins[raters[vote.rater], first, second] += vote.score
        wins[raters[vote.rater], second, first] += 1 - vote.score
    return wins
