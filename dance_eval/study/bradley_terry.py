"""One scale for more than two systems."""

import numpy as np
from scipy.sparse import csgraph


def bradley_terry(
    wins: np.ndarray, *, num_rounds: int = 10_000, tolerance: float = 1e-10
) -> np.ndarray | None:
    """Strengths by maximum likelihood in the model P(i beats j) = e^s_i / (e^s_i + e^s_j).

    Minorise-maximise steps of D. Hunter, "MM algorithms for generalized Bradley-Terry models"
    (2004), section 2.

    Args:
        wins: (S, S), how often system i was preferred to j; a tie counts one half to both.
        num_rounds: At most so many steps.
        tolerance: Stop when no strength moves by more.

    Returns:
        (S,) strengths in log odds, with mean 0; None where there is no finite estimate, since some
        systems never lost to the others, or never met them (Ford 1957).
    """
    num_groups, _ = csgraph.connected_components(wins > 0, directed=True, connection="strong")
    if num_groups > 1:
        return None
    met = wins + wins.T
    won = wins.sum(axis=1)
    strengths = np.zeros(len(wins))
    for _ in range(num_rounds):
        odds = np.exp(strengths)
        shares = met / (odds[:, None] + odds[None, :])
        moved = np.log(won / shares.sum(axis=1))
        moved -= moved.mean()
        step = np.abs(moved - strengths).max()
        strengths = moved
        if step < tolerance:
            break
    return strengths
