"""The score that a judge would give on average, from the probabilities of its digits."""

import math
from collections.abc import Mapping, Sequence

from dance_eval.judges.scores import strict_score

Position = Mapping[str, float]
"""Log-probabilities of the likeliest tokens at one position of an answer, by the token's text."""

MAX_ERROR = 0.01
"""How far a score may be off because it is not known what follows a "1"."""
MIN_MASS = 0.5


def expected_score(text: str, positions: Sequence[Position]) -> float | None:
    """Mean of 0 to 10 weighted by their probabilities, normalised over these numbers.

    Tokens that are digits stand for themselves. A "1" is 1 or the beginning of 10:
    P(10) = P(1) * P(0 | 1), and P(0 | 1) is known only where the answer itself begins with "1".

    Args:
        text: The answer; anything but one whole number from 0 to 10 has no expected score.
        positions: Of the answer's tokens from the first on.

    Returns:
        A score in [0, 10]. None where numbers hold less than half of the probability, or where the
        position after a "1" is missing and could change the score by more than 0.01.
    """
    score = strict_score(text)
    if score is None or score != int(score):
        return None
    first = next(
        (index for index, tokens in enumerate(positions) if tokens and _likeliest(tokens)), None
    )
    if first is None:
        return None
    chances = {value: _chance(positions[first], str(value)) for value in range(11)}
    mass = sum(chances.values())
    if mass < MIN_MASS:
        return None
    # Where "10" is a token of its own, a "1" begins nothing else.
    if not chances[10]:
        answers_one = _likeliest(positions[first]) == "1"
        second = positions[first + 1] if answers_one and len(positions) > first + 1 else None
        if second:
            ten = min(_chance(second, "0"), 1.0)
            chances[10], chances[1] = chances[1] * ten, chances[1] * (1 - ten)
        elif 9 * chances[1] / mass > MAX_ERROR:
            return None
    return sum(value * chance for value, chance in chances.items()) / mass


def _likeliest(tokens: Position) -> str:
    """The token that is answered at temperature 0, without white space."""
    return max(tokens, key=lambda token: tokens[token]).strip()


def _chance(tokens: Position, number: str) -> float:
    """Probability of a number, with or without white space around it."""
    return sum(math.exp(chance) for token, chance in tokens.items() if token.strip() == number)
