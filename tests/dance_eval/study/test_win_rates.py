import numpy as np
import pytest
from scipy import stats

from dance_eval.study.win_rates import clustered_interval, holm, sign_test, wilson_interval


@pytest.mark.parametrize(("wins", "votes"), [(0, 7), (3, 10), (165, 330), (10, 10)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_equals_scipys(wins, votes, confidence):
    expected = stats.binomtest(wins, votes).proportion_ci(confidence, method="wilson")
    found = wilson_interval(wins, votes, confidence=confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_half_width_at_330_votes_is_that_of_the_protocol():
    low, high = wilson_interval(165, 330)
    assert (high - low) / 2 == pytest.approx(0.054, abs=5e-4)


def test_a_tie_is_half_a_vote():
    low, high = wilson_interval(2.5, 5)
    assert low + high == pytest.approx(1.0)


def test_sign_test_by_hand_and_without_anything_but_ties():
    # 2 * (1 + 10) / 2**10
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
    assert sign_test(1, 9) == sign_test(9, 1)
    assert sign_test(0, 0) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def votes_of_many(rng, *, num_raters, num_items, rater_spread, item_spread):
    """Binary votes with a mean of one half and tendencies of raters and of items."""
    raters = rng.normal(0, rater_spread, (num_raters, 1))
    items = rng.normal(0, item_spread, (1, num_items))
    return (rng.normal(0, 1, (num_raters, num_items)) < raters + items).astype(float)


def coverage(interval_of, *, num_runs=150, **options):
    rng = np.random.default_rng(0)
    hits = 0
    for run in range(num_runs):
        votes = votes_of_many(rng, **options)
        low, high = interval_of(votes, run)
        hits += low <= 0.5 <= high
    return hits / num_runs


def bootstrap(clusters):
    def interval(votes, run):
        return clustered_interval(
            votes,
            np.ones_like(votes),
            clusters=clusters,
            seed=run,
            name="coverage",
            num_resamples=400,
        )

    return interval


def wilson(votes, run):
    return wilson_interval(votes.sum(), votes.size)


def test_intervals_cover_a_known_preference_where_their_assumptions_hold():
    alone = {"num_raters": 33, "num_items": 10, "rater_spread": 0.0, "item_spread": 0.0}
    assert 0.90 <= coverage(wilson, **alone) <= 0.99
    by_rater = {**alone, "rater_spread": 0.7}
    assert coverage(wilson, **by_rater) < 0.85
    assert 0.88 <= coverage(bootstrap("raters"), **by_rater) <= 0.99
    by_item = {"num_raters": 10, "num_items": 40, "rater_spread": 0.0, "item_spread": 0.7}
    assert coverage(wilson, **by_item) < 0.85
    assert 0.88 <= coverage(bootstrap("items"), **by_item) <= 0.99
    both = {"num_raters": 30, "num_items": 30, "rater_spread": 0.5, "item_spread": 0.5}
    assert coverage(bootstrap("raters"), **both) < 0.88
    assert 0.88 <= coverage(bootstrap("both"), **both)


def test_bootstrap_of_raters_is_that_of_their_means():
    """With as many votes for each rater it is scipy's bootstrap of a mean."""
    rng = np.random.default_rng(1)
    votes = votes_of_many(rng, num_raters=25, num_items=12, rater_spread=0.8, item_spread=0.0)
    found = clustered_interval(
        votes, np.ones_like(votes), clusters="raters", seed=0, name="x", num_resamples=20_000
    )
    expected = stats.bootstrap(
        (votes.mean(axis=1),), np.mean, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.006)


def test_bootstrap_needs_two_clusters_and_repeats_itself():
    votes, counts = np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0]])
    options = {"seed": 3, "name": "x"}
    assert clustered_interval(votes, counts, clusters="raters", **options) is None
    assert clustered_interval(votes, counts, clusters="both", **options) is None
    first = clustered_interval(votes, counts, clusters="items", **options)
    assert first == clustered_interval(votes, counts, clusters="items", **options)
    assert first == (0.0, 1.0)
