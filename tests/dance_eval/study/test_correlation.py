import numpy as np
import pytest
from scipy import stats

from dance_eval.study.correlation import (
    correlate_differences,
    pairwise_accuracy,
    rank_correlations,
)


def test_pairwise_accuracy_by_hand():
    metric = np.array([1.0, -2.0, 0.0, 3.0, 5.0])
    votes = np.array([0.2, 0.1, 0.3, 0.5, 0.0])
    # Right, wrong, half right, right; the tie of the votes is left out.
    assert pairwise_accuracy(metric, votes) == (pytest.approx(2.5 / 4), 4)
    assert pairwise_accuracy(metric, np.zeros(5)) == (None, 0)


def test_differences_equal_scipys_correlations_over_both_orders():
    rng = np.random.default_rng(0)
    metric = rng.normal(size=30).round(1)
    votes = (metric + rng.normal(size=30)).round(0) / 10
    found = correlate_differences(metric, votes, seed=0, name="x")
    both = np.concatenate([metric, -metric]), np.concatenate([votes, -votes])
    assert found.spearman == pytest.approx(stats.spearmanr(*both)[0])
    assert found.kendall == pytest.approx(stats.kendalltau(*both, variant="b")[0])
    low, high = found.spearman_interval
    assert low < found.spearman < high


def test_which_clip_is_called_the_first_does_not_matter():
    rng = np.random.default_rng(1)
    metric, votes = rng.normal(size=12), rng.normal(size=12)
    turned = np.where(np.arange(12) % 3 == 0, -1, 1)
    one = correlate_differences(metric, votes, seed=0, name="x")
    other = correlate_differences(metric * turned, votes * turned, seed=0, name="x")
    assert other.spearman == pytest.approx(one.spearman)
    assert other.kendall == pytest.approx(one.kendall)
    assert other.accuracy == one.accuracy


def test_interval_covers_a_known_correlation():
    rng = np.random.default_rng(2)
    # Spearman's rho of normal variables with correlation 0.5.
    true, hits = 6 / np.pi * np.arcsin(0.25), 0
    for run in range(60):
        pairs = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=40)
        low, high = correlate_differences(
            pairs[:, 0], pairs[:, 1], seed=run, name="x", num_resamples=200
        ).spearman_interval
        hits += low <= true <= high
    assert 52 <= hits <= 60


def test_what_is_not_defined_is_none():
    constant = correlate_differences(np.zeros(3), np.array([0.1, 0.2, -0.1]), seed=0, name="x")
    assert (constant.spearman, constant.kendall, constant.spearman_interval) == (None, None, None)
    assert constant.accuracy == 0.5
    single = correlate_differences(np.ones(1), np.ones(1), seed=0, name="x")
    assert (single.num, single.spearman, single.accuracy) == (1, None, 1.0)
    assert rank_correlations([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == (-1.0, -1.0)
    assert rank_correlations([1.0], [2.0]) == (None, None)
