"""Numbers read out of answers: by the authors' rule, by a stricter one, and from probabilities."""

import math
import re
from collections.abc import Mapping, Sequence

LOWEST, HIGHEST = 0.0, 10.0
MAX_ERROR = 0.01
"""How far an expected score may be off because it is not known what follows a "1"."""
MIN_MASS = 0.5

Position = Mapping[str, float]
"""Log-probabilities of the likeliest tokens at one position of an answer, by the token's text."""

_AUTHORS = re.compile(r"(\d+(?:\.\d+)?)")
_STRICT = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*10|\s+out\s+of\s+10)?\.?")


def authors_score(text: str) -> float | None:
    """The first number of an answer if it lies in [0, 10], else None (authors' code).

    It passes over signs and leading points and takes the first number of a range: "-3" gives 3,
    ".5" gives 5 and "I rate it 0-10: 8" gives 0.
    """
    found = _AUTHORS.search(text.strip())
    return _in_range(found.group(1)) if found else None


def strict_score(text: str) -> float | None:
    """The number in [0, 10] that is the whole answer, else None (our addition).

    White space, asterisks of bold type, a final full stop, and "/10" or "out of 10" may stand
    around the number.
    """
    found = _STRICT.fullmatch(text.replace("*", "").strip())
    return _in_range(found.group(1)) if found else None


def expected_score(text: str, positions: Sequence[Position]) -> float | None:
    """Mean of 0 to 10 weighted by their probabilities, normalised over these numbers.

    Tokens that are digits stand for themselves. A "1" is 1 or the beginning of 10:
    P(10) = P(1) * P(0 | 1), and P(0 | 1) is known only where the answer itself begins with "1".
    None where the answer is anything but one whole number from 0 to 10, where numbers hold less
    than half of the probability, or where the position after a "1" is missing and could change the
    score by more than 0.01.
    """
    score = strict_score(text)
    if score is None or score != int(score):
        return None
    first = next((n for n, tokens in enumerate(positions) if tokens and _likeliest(tokens)), None)
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


def _in_range(number: str) -> float | None:
    score = float(number)
    return score if LOWEST <= score <= HIGHEST else None


def _likeliest(tokens: Position) -> str:
    """The token that is answered at temperature 0, without white space."""
    return max(tokens, key=lambda token: tokens[token]).strip()


def _chance(tokens: Position, number: str) -> float:
    """Probability of a number, with or without white space around it."""
    return sum(math.exp(chance) for token, chance in tokens.items() if token.strip() == number)
