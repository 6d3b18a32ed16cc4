"""Numbers read out of answers: by the authors' rule, and by a stricter one."""

import re

LOWEST, HIGHEST = 0.0, 10.0

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


def _in_range(number: str) -> float | None:
    score = float(number)
    return score if LOWEST <= score <= HIGHEST else None
