import numpy as np
import pytest
from scipy import optimize

from dance_eval.study.bradley_terry import bradley_terry


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
