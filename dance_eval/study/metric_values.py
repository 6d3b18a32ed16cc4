"""Automatic metrics beside the votes: item by item and system by system."""

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
    correlate_differences,
    pairwise_accuracy,
    rank_correlations,
)
from dance_eval.study.votes import Problem, Vote

ALL_QUESTIONS = "all"
ClipValues = dict[tuple[str, str], float]
"""By system and SHA-256 of the clip."""


def read_metric_values(files: Iterable[Path]) -> dict[str, ClipValues]:
    """Values of all clips by ``metric/value``; of several files the later counts.

    Raises:
        ReportError: If a file is no metrics.json.
    """
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
            said = f"has no value for {missing} of {len(clips)} clips of the study."
            problems.append(Problem("unscored", name, said, is_grave=False))
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
