import numpy as np
import pytest
from scipy import optimize, stats

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
            Resampling(run, num_resamples=400),
            clusters=clusters,
            name="coverage",
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
        votes,
        np.ones_like(votes),
        Resampling(num_resamples=20_000),
        clusters="raters",
        name="x",
    )
    expected = stats.bootstrap(
        (votes.mean(axis=1),), np.mean, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.006)


def test_bootstrap_needs_two_clusters_and_repeats_itself():
    votes, counts = np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0]])
    how = Resampling(3)
    assert clustered_interval(votes, counts, how, clusters="raters", name="x") is None
    assert clustered_interval(votes, counts, how, clusters="both", name="x") is None
    first = clustered_interval(votes, counts, how, clusters="items", name="x")
    assert first == clustered_interval(votes, counts, how, clusters="items", name="x")
    assert first == (0.0, 1.0)


# Four observers, twelve units, values 1 to 5, some missing: the worked example (C) of
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011).
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def counted(observers, num_values):
    values = np.zeros((len(observers[0]), num_values))
    for observer in observers:
        for unit, value in enumerate(observer):
            if value is not None:
                values[unit, value - 1] += 1
    return values


def alpha_by_pairs(observers, distance):
    """The definition: observed over expected disagreement of pairs of values."""
    units = [[row[u] for row in observers if row[u] is not None] for u in range(len(observers[0]))]
    units = [unit for unit in units if len(unit) > 1]
    pooled = [value for unit in units for value in unit]
    observed = sum(
        distance(a, b) / (len(unit) - 1)
        for unit in units
        for i, a in enumerate(unit)
        for j, b in enumerate(unit)
        if i != j
    ) / len(pooled)
    expected = sum(distance(a, b) for a in pooled for b in pooled)
    return 1 - observed * len(pooled) * (len(pooled) - 1) / expected


def test_the_published_example():
    values = counted(OBSERVERS, 5)
    assert krippendorff_alpha(values) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(values, levels=np.arange(1.0, 6.0)) == pytest.approx(0.849, abs=5e-4)


def test_both_kinds_equal_the_definition_on_random_votes():
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, 4, (6, 20)).tolist()
    drawn[2][3] = drawn[5][3] = None
    values = counted(drawn, 3)
    assert krippendorff_alpha(values) == pytest.approx(alpha_by_pairs(drawn, lambda a, b: a != b))
    expected = alpha_by_pairs(drawn, lambda a, b: ((a - b) / 2) ** 2)
    assert krippendorff_alpha(values, levels=np.array([0, 0.5, 1])) == pytest.approx(expected)


def test_perfect_agreement_chance_and_nothing_to_compare():
    assert krippendorff_alpha(np.array([[3, 0], [0, 3]])) == 1.0
    chance = np.random.default_rng(1).multinomial(20, [0.5, 0.5], 400)
    assert krippendorff_alpha(chance) == pytest.approx(0.0, abs=0.02)
    assert krippendorff_alpha(np.array([[1, 0], [0, 1]])) is None
    assert krippendorff_alpha(np.array([[2, 0], [3, 0]])) is None


def test_interval_holds_the_value_and_shrinks_with_units():
    rng = np.random.default_rng(2)
    shares = rng.uniform(0, 1, 400)
    values = np.array([rng.multinomial(10, [share, 1 - share]) for share in shares])
    widths = []
    for part in (values[:25], values):
        low, high = alpha_interval(part, Resampling(num_resamples=200), name="x")
        assert low < krippendorff_alpha(part) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]
    assert alpha_interval(values[:1], Resampling(), name="x") is None


def likeliest(wins):
    """Strengths by a general optimiser of the likelihood."""

    def loss(free):
        strengths = np.append(free, -free.sum())
        chance = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        return -(wins * np.log(chance)).sum()

    free = optimize.minimize(loss, np.zeros(len(wins) - 1), tol=1e-12).x
    return np.append(free, -free.sum())


def test_two_systems_have_the_log_odds_of_their_votes():
    found = bradley_terry(np.array([[0, 30], [10, 0]]))
    assert found == pytest.approx([np.log(3) / 2, -np.log(3) / 2])


def test_equals_the_maximum_of_the_likelihood_with_ties_and_pairs_that_never_met():
    wins = np.array([[0, 12.5, 20, 0], [7.5, 0, 11, 6], [4, 9, 0, 8.5], [0, 5, 3.5, 0]])
    assert bradley_terry(wins) == pytest.approx(likeliest(wins), abs=1e-4)


def test_recovers_known_strengths():
    true = np.array([0.9, 0.1, -0.3, -0.7])
    rng = np.random.default_rng(0)
    wins = np.zeros((4, 4))
    for i in range(4):
        for j in range(i + 1, 4):
            wins[i, j] = rng.binomial(4000, 1 / (1 + np.exp(true[j] - true[i])))
            wins[j, i] = 4000 - wins[i, j]
    assert bradley_terry(wins) == pytest.approx(true, abs=0.06)


def test_no_finite_estimate_is_none():
    assert bradley_terry(np.array([[0, 5, 5], [0, 0, 3], [0, 2, 0]])) is None
    apart = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    assert bradley_terry(apart) is None


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
    found = correlate_differences(metric, votes, Resampling(num_resamples=1000), name="x")
    both = np.concatenate([metric, -metric]), np.concatenate([votes, -votes])
    assert found["spearman"] == pytest.approx(stats.spearmanr(*both)[0])
    assert found["kendall"] == pytest.approx(stats.kendalltau(*both, variant="b")[0])
    low, high = found["spearman_interval"]
    assert low < found["spearman"] < high


def test_which_clip_is_called_the_first_does_not_matter():
    rng = np.random.default_rng(1)
    metric, votes = rng.normal(size=12), rng.normal(size=12)
    turned = np.where(np.arange(12) % 3 == 0, -1, 1)
    one = correlate_differences(metric, votes, Resampling(num_resamples=1000), name="x")
    other = correlate_differences(
        metric * turned, votes * turned, Resampling(num_resamples=1000), name="x"
    )
    assert other["spearman"] == pytest.approx(one["spearman"])
    assert other["kendall"] == pytest.approx(one["kendall"])
    assert other["pairwise_accuracy"] == one["pairwise_accuracy"]


def test_interval_covers_a_known_correlation():
    rng = np.random.default_rng(2)
    # Spearman's rho of normal variables with correlation 0.5.
    true, hits = 6 / np.pi * np.arcsin(0.25), 0
    for run in range(60):
        pairs = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=40)
        low, high = correlate_differences(
            pairs[:, 0], pairs[:, 1], Resampling(run, num_resamples=200), name="x"
        )["spearman_interval"]
        hits += low <= true <= high
    assert 52 <= hits <= 60


def test_what_is_not_defined_is_none():
    constant = correlate_differences(
        np.zeros(3), np.array([0.1, 0.2, -0.1]), Resampling(), name="x"
    )
    assert (constant["spearman"], constant["kendall"], constant["spearman_interval"]) == (
        None,
        None,
        None,
    )
    assert constant["pairwise_accuracy"] == 0.5
    single = correlate_differences(np.ones(1), np.ones(1), Resampling(), name="x")
    assert (single["pairs"], single["spearman"], single["pairwise_accuracy"]) == (1, None, 1.0)
    assert rank_correlations([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == (-1.0, -1.0)
    assert rank_correlations([1.0], [2.0]) == (None, None)
