"""How far raters agree with each other."""

import numpy as np
import torch

from dance_eval.study.win_rates import Interval
from musicinfuser.keyed_random import generator


def unit_coincidences(values: np.ndarray) -> np.ndarray:
    """Coincidences of values within each unit.

    Args:
        values: (U, C), how often each of C values was given to each of U units.

    Returns:
        (U, C, C): for each unit with m >= 2 values, how often values c and k were given by two
        different raters, over m - 1; zero for units with fewer values.
    """
    totals = values.sum(axis=1)
    pairs = values[:, :, None] * values[:, None, :]
    index = np.arange(values.shape[1])
    pairs[:, index, index] -= values
    return pairs / np.maximum(totals - 1, 1)[:, None, None] * (totals >= 2)[:, None, None]


def alpha_of(coincidences: np.ndarray, *, distances: np.ndarray) -> float | None:
    """Krippendorff's alpha of coincidences, or None without disagreement to expect.

    Args:
        coincidences: Summed over units.
        distances: (C, C), squared differences between values.
    """
    marginals = coincidences.sum(axis=0)
    total = marginals.sum()
    expected = (np.outer(marginals, marginals) * distances).sum()
    if expected == 0:
        return None
    return float(1 - (total - 1) * (coincidences * distances).sum() / expected)


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
    return alpha_of(
        unit_coincidences(np.asarray(values, dtype=np.float64)).sum(axis=0),
        distances=_distances(values.shape[1], levels),
    )


def alpha_interval(
    values: np.ndarray,
    *,
    levels: np.ndarray | None = None,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Interval | None:
    """Percentile bootstrap interval of alpha over units, or None with fewer than two units."""
    each = unit_coincidences(np.asarray(values, dtype=np.float64))
    each = each[each.sum(axis=(1, 2)) > 0]
    if len(each) < 2:
        return None
    stream = generator(seed, name, "study alpha")
    distances = _distances(values.shape[1], levels)
    alphas = []
    for _ in range(num_resamples):
        drawn = torch.randint(len(each), (len(each),), generator=stream).numpy()
        alphas.append(alpha_of(each[drawn].sum(axis=0), distances=distances))
    known = [alpha for alpha in alphas if alpha is not None]
    if not known:
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _distances(num_values: int, levels: np.ndarray | None) -> np.ndarray:
    if levels is None:
        return 1.0 - np.eye(num_values)
    return (levels[:, None] - levels[None, :]) ** 2.0
