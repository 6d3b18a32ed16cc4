import numpy as np
import pytest

from dance_eval.study.agreement import alpha_interval, krippendorff_alpha

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
        low, high = alpha_interval(part, seed=0, name="x", num_resamples=200)
        assert low < krippendorff_alpha(part) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]
    assert alpha_interval(values[:1], seed=0, name="x") is None
