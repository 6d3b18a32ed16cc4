"""Whether automatic metrics see what people see."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from dance_eval.study.win_rates import Interval
from musicinfuser.keyed_random import generator

_CHUNK_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Correlation:
    """How two lists of numbers go together; None where that is not defined.

    Attributes:
        num: How many pairs of numbers.
        spearman: Rank correlation.
        kendall: Tau-b.
        accuracy: Share of pairs with a preference that the metric prefers too.
        num_decided: Pairs with a preference.
        spearman_interval: Bootstrap interval of the rank correlation.
    """

    num: int
    spearman: float | None
    kendall: float | None
    accuracy: float | None
    num_decided: int
    spearman_interval: Interval | None = None


def pairwise_accuracy(metric: np.ndarray, votes: np.ndarray) -> tuple[float | None, int]:
    """Share of pairs for which a metric and the votes prefer the same side.

    Args:
        metric: (N,), the metric of the first less that of the second; 0 counts as half right.
        votes: (N,), above 0 where the first was preferred; 0 is left out.

    Returns:
        The share, None without a preference, and how many pairs had one.
    """
    decided = votes != 0
    if not decided.any():
        return None, 0
    agrees = np.sign(metric[decided]) * np.sign(votes[decided])
    return float(np.mean((agrees + 1) / 2)), int(decided.sum())


def correlate_differences(
    metric: np.ndarray,
    votes: np.ndarray,
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 1000,
) -> Correlation:
    """Correlate differences of a metric with preferences, over pairs of clips.

    Each pair counts in both orders, (x, y) and (-x, -y), so that it does not matter which clip is
    called the first; the interval draws pairs.

    Args:
        metric: (N,), the metric of the first clip less that of the second.
        votes: (N,), mean score of the first less 0.5.
        seed: The analysis's seed.
        name: What is correlated; with the seed it fixes the draws.
        confidence: Share of resampled values inside the interval.
        num_resamples: Number of draws.
    """
    accuracy, num_decided = pairwise_accuracy(metric, votes)
    if len(metric) < 2:
        return Correlation(len(metric), None, None, accuracy, num_decided)
    both = np.concatenate([metric, -metric]), np.concatenate([votes, -votes])
    spearman, kendall = rank_correlations(*both)
    interval = None
    if spearman is not None:
        stream = generator(seed, name, "study correlation")
        values: list[np.ndarray] = []
        chunk = max(_CHUNK_NUMBERS // len(metric), 1)
        for start in range(0, num_resamples, chunk):
            size = (min(chunk, num_resamples - start), len(metric))
            drawn = torch.randint(len(metric), size, generator=stream).numpy()
            values.append(
                _row_spearman(
                    *(np.concatenate([v[drawn], -v[drawn]], axis=1) for v in (metric, votes))
                )
            )
        known = np.concatenate(values)
        known = known[np.isfinite(known)]
        if len(known):
            low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
            interval = float(low), float(high)
    return Correlation(len(metric), spearman, kendall, accuracy, num_decided, interval)


def rank_correlations(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> tuple[float | None, float | None]:
    """Spearman's rho and Kendall's tau-b; None where a list is constant or has fewer than two."""
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None, None
    values = float(stats.spearmanr(one, other)[0]), float(stats.kendalltau(one, other)[0])
    spearman, kendall = (value if math.isfinite(value) else None for value in values)
    return spearman, kendall


def _row_spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of each row of (B, N), (B,); not a number where a row is constant."""
    ranks = [stats.rankdata(values, axis=1) for values in (first, second)]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (centred[0] * centred[1]).sum(axis=1) / np.sqrt(
            (centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1)
        )
