"""Statistics of votes: shares, tests, intervals, agreement, strengths, rank correlations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.sparse import csgraph

from dance_eval.metrics.intervals import percentiles
from musicinfuser.keyed_random import generator

Interval = tuple[float, float]


@dataclass(frozen=True)
class Resampling:
    """What all intervals of one analysis share.

    Attributes:
        seed: Of all resamples.
        confidence: Share of the resampled values inside an interval, in (0, 1).
        num_resamples: Of each bootstrap.
    """

    seed: int = 0
    confidence: float = 0.95
    num_resamples: int = 2000

    def interval(self, values: np.ndarray | Sequence[float]) -> Interval | None:
        """The percentile interval of resampled values; None where none is a finite number."""
        known = torch.as_tensor(np.asarray(values, dtype=np.float64))
        known = known[known.isfinite()]
        return percentiles(known, confidence=self.confidence) if len(known) else None

    def weights(self, num: int, *, name: str, purpose: str) -> np.ndarray:
        """How often each of ``num`` things is drawn when as many are drawn with replacement.

        float64 (num_resamples, num), rows with the sum ``num``.
        """
        stream = generator(self.seed, name, purpose)
        drawn = torch.randint(num, (self.num_resamples, num), generator=stream)
        weights = torch.zeros(self.num_resamples, num, dtype=torch.float64)
        return weights.scatter_add(1, drawn, torch.ones_like(weights)).numpy()


def wilson_interval(num_wins: float, num_votes: float, *, confidence: float = 0.95) -> Interval:
    """Both ends, in [0, 1], of Wilson's score interval of a share of one vote or more.

    A tie counts half a win. Votes count as if independent of each other, which those of one rater,
    or about one pair, are not; see `clustered_interval`.
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share, scale = num_wins / num_votes, 1 + z * z / num_votes
    middle = (share + z * z / (2 * num_votes)) / scale
    variance = share * (1 - share) / num_votes + z * z / (4 * num_votes * num_votes)
    half = z * math.sqrt(variance) / scale
    return max(middle - half, 0.0), min(middle + half, 1.0)


def clustered_interval(
    scores: np.ndarray, counts: np.ndarray, how: Resampling, *, clusters: str, name: str
) -> Interval | None:
    """Percentile bootstrap interval of a mean score that draws whole raters, items, or both.

    Args:
        scores: (R, I), sums of scores of each rater on each item, 0 where there are none.
        counts: (R, I), how many scores there are.
        how: The resamples.
        clusters: ``"raters"``, ``"items"`` or ``"both"``; with both, raters and items are drawn
            independently of each other, which is meant for conclusions beyond these two and gives
            the widest interval (Owen 2007, "The pigeonhole bootstrap").
        name: What is averaged; with the seed it fixes the draws.

    Returns:
        Both ends, or None with fewer than two clusters.
    """
    used = counts.sum(axis=1) > 0, counts.sum(axis=0) > 0
    scores, counts = scores[used[0]][:, used[1]], counts[used[0]][:, used[1]]
    sizes = dict(zip(("raters", "items"), counts.shape, strict=True))
    if min(num for kind, num in sizes.items() if clusters in (kind, "both")) < 2:
        return None
    raters, items = (
        how.weights(num, name=name, purpose=f"study bootstrap {kind}")
        if clusters in (kind, "both")
        else np.ones((1, num))
        for kind, num in sizes.items()
    )
    total, number = (((raters @ values) * items).sum(axis=1) for values in (scores, counts))
    # A draw of raters and items that never met says nothing.
    return how.interval(total[number > 0] / number[number > 0])


def sign_test(num_first: int, num_second: int) -> float:
    """Two-sided p value of no preference, by how often each was preferred; 1 for ties alone."""
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


def krippendorff_alpha(values: np.ndarray, *, levels: np.ndarray | None = None) -> float | None:
    """Krippendorff's alpha: 1 for perfect agreement, 0 for what chance gives.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Units may have any number
    of values; those with one say nothing.

    Args:
        values: (U, C), how often each of C values was given to each of U units.
        levels: (C,), numbers that the values stand for, whose squared differences are the distances
            (interval data); None takes all different values as equally far apart (nominal data).

    Returns:
        Alpha, or None if there are no two values to compare or all are the same.
    """
    alpha = float(_alphas(_coincidences(values).sum(axis=0)[None], levels)[0])
    return alpha if math.isfinite(alpha) else None


def alpha_interval(values: np.ndarray, how: Resampling, *, name: str) -> Interval | None:
    """Percentile bootstrap interval of the nominal alpha over units; None with fewer than two."""
    each = _coincidences(values)
    each = each[each.sum(axis=(1, 2)) > 0]
    if len(each) < 2:
        return None
    weights = how.weights(len(each), name=name, purpose="study alpha")
    return how.interval(_alphas(np.tensordot(weights, each, axes=1), None))


def _coincidences(values: np.ndarray) -> np.ndarray:
    """(U, C, C), how often two raters gave a unit of m values two of them, over m - 1."""
    values = np.asarray(values, dtype=np.float64)
    totals = values.sum(axis=1)
    pairs = values[:, :, None] * values[:, None, :]
    index = np.arange(values.shape[1])
    pairs[:, index, index] -= values
    return pairs / np.maximum(totals - 1, 1)[:, None, None] * (totals >= 2)[:, None, None]


def _alphas(coincidences: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
    """Alpha of each of (B, C, C) coincidences; not a number without disagreement to expect."""
    num_values = coincidences.shape[-1]
    distances = 1.0 - np.eye(num_values) if levels is None else (levels[:, None] - levels) ** 2.0
    marginals = coincidences.sum(axis=1)
    expected = np.einsum("bi,bj,ij->b", marginals, marginals, distances)
    observed = (marginals.sum(axis=1) - 1) * (coincidences * distances).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def bradley_terry(wins: np.ndarray) -> np.ndarray | None:
    """Strengths by maximum likelihood in the model P(i beats j) = e^s_i / (e^s_i + e^s_j).

    Minorise-maximise steps of D. Hunter, "MM algorithms for generalized Bradley-Terry models"
    (2004), section 2, until no strength moves by more than 1e-10.

    Takes (S, S), how often system i was preferred to j, where a tie counts one half to both, to
    (S,) strengths in log odds, with mean 0; None where there is no finite estimate, since some
    systems never lost to the others, or never met them (Ford 1957).
    """
    num_groups, _ = csgraph.connected_components(wins > 0, directed=True, connection="strong")
    if num_groups > 1:
        return None
    met, won = wins + wins.T, wins.sum(axis=1)
    strengths = np.zeros(len(wins))
    for _ in range(10_000):
        odds, before = np.exp(strengths), strengths
        strengths = np.log(won / (met / (odds[:, None] + odds[None, :])).sum(axis=1))
        strengths -= strengths.mean()
        if np.abs(strengths - before).max() < 1e-10:
            break
    return strengths


def pairwise_accuracy(metric: np.ndarray, votes: np.ndarray) -> tuple[float | None, int]:
    """Share of pairs for which a metric and the votes prefer the same side, and how many decide.

    Both are (N,), the first's less the second's. A pair without a preference of the votes is left
    out, one without a difference of the metric is half right; None without any preference.
    """
    decided = votes != 0
    if not decided.any():
        return None, 0
    agrees = np.sign(metric[decided]) * np.sign(votes[decided])
    return float(np.mean((agrees + 1) / 2)), int(decided.sum())


def correlate_differences(
    metric: np.ndarray, votes: np.ndarray, how: Resampling, *, name: str
) -> dict[str, Any]:
    """Correlate differences of a metric with preferences, over pairs of clips.

    Each pair counts in both orders, (x, y) and (-x, -y), so that it does not matter which clip is
    called the first; the interval draws pairs.

    Args:
        metric: (N,), the metric of the first clip less that of the second.
        votes: (N,), mean score of the first less 0.5.
        how: The resamples.
        name: What is correlated; with the seed it fixes the draws.

    Returns:
        ``pairs``, ``spearman`` with its ``spearman_interval``, ``kendall`` (tau-b),
        ``pairwise_accuracy`` and ``pairs_decided``; None for what is not defined.
    """
    both = [np.concatenate([values, -values]) for values in (metric, votes)]
    spearman, kendall = rank_correlations(*both) if len(metric) > 1 else (None, None)
    interval = None
    if spearman is not None:
        stream = generator(how.seed, name, "study correlation")
        size = how.num_resamples, len(metric)
        drawn = torch.randint(len(metric), size, generator=stream).numpy()
        resampled = [np.concatenate([v[drawn], -v[drawn]], axis=1) for v in (metric, votes)]
        interval = how.interval(_row_spearman(*resampled))
    accuracy, num_decided = pairwise_accuracy(metric, votes)
    return {
        "pairs": len(metric),
        "spearman": spearman,
        "spearman_interval": interval,
        "kendall": kendall,
        "pairwise_accuracy": accuracy,
        "pairs_decided": num_decided,
    }


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
    one, other = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
