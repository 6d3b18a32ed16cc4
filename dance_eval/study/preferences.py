"""Votes on pairs as tables of numbers: win rates, agreement, strengths, and metrics beside them."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

from dance_eval.metrics.report import Document, read_report
from dance_eval.study.key import StudyKey
from dance_eval.study.vote_statistics import (
    Resampling,
    alpha_interval,
    bradley_terry,
    clustered_interval,
    correlate_differences,
    holm,
    krippendorff_alpha,
    pairwise_accuracy,
    rank_correlations,
    sign_test,
    wilson_interval,
)
from dance_eval.study.votes import Problem, Vote

ALL_QUESTIONS = "all"
ClipValues = dict[tuple[str, str], float]
"""By system and SHA-256 of the clip."""


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
        # The 0 keeps the draws, and so the ends, of earlier versions.
        row[f"{clusters}_interval"] = clustered_interval(
            scores, counts, how, clusters=clusters, name=f"{systems}/{question}/0"
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


def read_metric_values(files: Iterable[Path]) -> dict[str, ClipValues]:
    """Values of all clips of files metrics.json by ``metric/value``; the later file counts."""
    values: dict[str, ClipValues] = defaultdict(dict)
    for file in files:
        for clip in read_report(file, clip_fields=["sha256"])["clips"]:
            for metric, named in clip["values"].items():
                for name, value in named.items():
                    values[f"{metric}/{name}"][clip["system"], clip["sha256"]] = float(value)
    return dict(values)


def unscored(metrics: Mapping[str, ClipValues], key: StudyKey) -> list[Problem]:
    """Metrics that lack clips of the study."""
    clips, problems = _intact_clips(key), []
    for name, values in metrics.items():
        missing = len(clips - values.keys())
        if missing:
            text = f"has no value for {missing} of {len(clips)} clips of the study."
            problems.append(Problem("unscored", name, text, is_grave=False))
    return problems


def _intact_clips(key: StudyKey) -> set[tuple[str, str]]:
    return {(clip.system, clip.sha256) for clip in key.clips.values() if not clip.spoiling}


def item_preferences(votes: Sequence[Vote], question: str) -> dict[str, float]:
    """Mean score of each pair less 0.5; with `ALL_QUESTIONS` over all answers to it."""
    scores: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        if question in (vote.question, ALL_QUESTIONS):
            scores[vote.item].append(vote.score)
    return {item: fmean(each) - 0.5 for item, each in scores.items()}


def item_differences(
    values: ClipValues, preferences: Mapping[str, float], key: StudyKey
) -> tuple[np.ndarray, np.ndarray]:
    """Metric differences and preferences of the pairs that have both, (N,) each."""
    found = []
    for name, preference in preferences.items():
        clips = (key.clips[clip] for clip in (key.items[name].first, key.items[name].second))
        first, second = (values.get((clip.system, clip.sha256)) for clip in clips)
        if first is not None and second is not None:
            found.append((first - second, preference))
    columns = np.array(found, dtype=float).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def correlations(
    metrics: Mapping[str, ClipValues], votes: Sequence[Vote], key: StudyKey, how: Resampling
) -> list[Document]:
    """Every metric against every question, and against all of them together.

    Item level: differences between the two clips of a pair against the share of votes. System
    level: means over the study's clips against win rates over all votes; the accuracy counts pairs
    of systems, the rank correlations need at least three systems.
    """
    how = replace(how, num_resamples=min(how.num_resamples, 1000))
    rows: list[Document] = []
    for name, values in metrics.items():
        for question in [*(q for q, _ in key.questions), ALL_QUESTIONS]:
            found = item_differences(values, item_preferences(votes, question), key)
            own = [vote for vote in votes if question in (vote.question, ALL_QUESTIONS)]
            rows.append(
                {
                    "metric": name,
                    "question": question,
                    **correlate_differences(*found, how, name=f"{name}/{question}"),
                    **_system_level(values, own, key),
                }
            )
    return rows


def _system_level(values: ClipValues, votes: Sequence[Vote], key: StudyKey) -> Document:
    liked: dict[str, list[float]] = defaultdict(list)
    direct: dict[tuple[str, str], list[float]] = defaultdict(list)
    for vote in votes:
        first, second = key.systems_of(vote.item)
        liked[first].append(vote.score)
        liked[second].append(1 - vote.score)
        direct[first, second].append(vote.score)
    clips, means = _intact_clips(key), {}
    for system in key.systems:
        known = [values[clip] for clip in clips if clip[0] == system and clip in values]
        if known and liked[system]:
            means[system] = fmean(known)
    names = list(means)
    spearman = kendall = None
    if len(names) > 2:
        spearman, kendall = rank_correlations(
            [means[name] for name in names], [fmean(liked[name]) for name in names]
        )
    met = [pair for pair in itertools.permutations(names, 2) if direct.get(pair)]
    accuracy, _ = pairwise_accuracy(
        np.array([means[first] - means[second] for first, second in met]),
        np.array([fmean(direct[pair]) - 0.5 for pair in met]),
    )
    return {
        "systems": len(names),
        "system_spearman": spearman,
        "system_kendall": kendall,
        "system_accuracy": accuracy,
    }
