"""Shares of votes with intervals, and tests of no preference."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from musicinfuser.keyed_random import generator

Interval = tuple[float, float]

_CHUNK_NUMBERS = 2_000_000


def wilson_interval(num_wins: float, num_votes: float, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share.

    Votes count as if independent of each other, which those of one rater, or about one pair, are
    not; see `clustered_interval`.

    Args:
        num_wins: Votes for; a tie counts one half.
        num_votes: Votes in all, more than 0.
        confidence: In (0, 1).

    Returns:
        Both ends, in [0, 1].
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = num_wins / num_votes
    scale = 1 + z * z / num_votes
    middle = (share + z * z / (2 * num_votes)) / scale
    half = (
        z * math.sqrt(share * (1 - share) / num_votes + z * z / (4 * num_votes * num_votes)) / scale
    )
    return max(middle - half, 0.0), min(middle + half, 1.0)


def clustered_interval(
    scores: np.ndarray,
    counts: np.ndarray,
    *,
    clusters: str,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Interval | None:
    """Percentile bootstrap interval of a mean score that draws whole raters, items, or both.

    Args:
        scores: (R, I), sums of scores of each rater on each item, 0 where there are none.
        counts: (R, I), how many scores there are.
        clusters: ``"raters"``, ``"items"`` or ``"both"``; with both, raters and items are drawn
            independently of each other, which is meant for conclusions beyond these two and gives
            the widest interval (Owen 2007, "The pigeonhole bootstrap").
        seed: The analysis's seed.
        name: What is averaged; with the seed it fixes the draws.
        confidence: Share of the resampled means inside the interval.
        num_resamples: Number of draws.

    Returns:
        Both ends, or None with fewer than two clusters.
    """
    used = counts.sum(axis=1) > 0, counts.sum(axis=0) > 0
    scores, counts = scores[used[0]][:, used[1]], counts[used[0]][:, used[1]]
    num_raters, num_items = counts.shape
    least = {"raters": num_raters, "items": num_items, "both": min(counts.shape)}[clusters]
    if least < 2:
        return None
    chunk = max(_CHUNK_NUMBERS // (num_raters + num_items), 1)
    sums = []
    for start in range(0, num_resamples, chunk):
        raters, items = (
            drawn_weights(
                num,
                num_drawn=min(chunk, num_resamples - start),
                seed=seed,
                name=f"{name}/{start}",
                purpose=f"study bootstrap {kind}",
            )
            if clusters in (kind, "both")
            else np.ones((1, num))
            for num, kind in ((num_raters, "raters"), (num_items, "items"))
        )
        sums.append([((raters @ values) * items).sum(axis=1) for values in (scores, counts)])
    total, number = np.concatenate([np.stack(pair) for pair in sums], axis=1)
    # A draw of raters and items that never met says nothing.
    means = total[number > 0] / number[number > 0]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def drawn_weights(num: int, *, num_drawn: int, seed: int, name: str, purpose: str) -> np.ndarray:
    """How often each of so many things is drawn when as many are drawn with replacement.

    Returns:
        float64 (num_drawn, num), rows with the sum ``num``.
    """
    stream = generator(seed, name, purpose)
    drawn = torch.randint(num, (num_drawn, num), generator=stream)
    ones = torch.ones(1, dtype=torch.float64).expand(num_drawn, num)
    return torch.zeros(num_drawn, num, dtype=torch.float64).scatter_add(1, drawn, ones).numpy()


def sign_test(num_first: int, num_second: int) -> float:
    """Two-sided p value of no preference; ties are left out.

    Args:
        num_first: How often the first was preferred.
        num_second: How often the second was.

    Returns:
        1 where there is nothing but ties.
    """
    if num_first + num_second == 0:
        return 1.0
    return float(stats.binomtest(num_first, num_first + num_second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: rejecting what is below 0.05 errs in 5 % of families."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min((len(p_values) - rank) * p_values[i], 1.0))
        adjusted[i] = largest
    return adjusted
