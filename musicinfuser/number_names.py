"""Numbers as names: short where they are told apart, never two numbers under one name."""

from collections.abc import Sequence

_FEWEST_DECIMALS = 2
_MOST_DECIMALS = 1074
"""Those of the smallest number above 0."""


def exact_name(number: float) -> str:
    """The shortest usual form that reads back as the same number: ``0.75``, ``1``, ``1.0000001``.

    Args:
        number: Any.
    """
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def decimal_names(numbers: Sequence[float]) -> list[str]:
    """Two decimals for each number, more for those that another one would be rounded to.

    0.2, 0.951 and 0.949 become ``0.20``, ``0.951`` and ``0.949``.

    Args:
        numbers: All different, finite.
    """
    names = []
    for index, number in enumerate(numbers):
        others = [*numbers[:index], *numbers[index + 1 :]]
        decimals = next(
            d
            for d in range(_FEWEST_DECIMALS, _MOST_DECIMALS + 1)
            if f"{number:.{d}f}" not in {f"{other:.{d}f}" for other in others}
        )
        names.append(f"{number:.{decimals}f}")
    return names
