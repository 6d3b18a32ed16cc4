"""Numbers as names: as short as they can be without two numbers under one name."""

from collections.abc import Sequence


def exact_name(number: float) -> str:
    """The shortest form that reads back as the same number: ``0.75``, ``1``, ``1.0000001``."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def decimal_names(numbers: Sequence[float]) -> list[str]:
    """Two decimals for each number, more for those that another one would be rounded to.

    0.2, 0.951 and 0.949 become ``0.20``, ``0.951`` and ``0.949``.

    Args:
        numbers: All different, finite.
    """
    names = []
    for number in numbers:
        decimals = 2
        while sum(f"{other:.{decimals}f}" == f"{number:.{decimals}f}" for other in numbers) > 1:
            decimals += 1
        names.append(f"{number:.{decimals}f}")
    return names
