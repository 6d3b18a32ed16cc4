"""Telling this program's own sentences from errors of the libraries it calls."""

import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "train.py",
    "evaluate.py",
    "musicinfuser",
    "lightning_modules",
    "datamodules",
    "callbacks",
)


def is_ours(error: BaseException) -> bool:
    """Whether this program raised the error, rather than a library it called."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    raised_in = Path(frames[-1].filename).resolve()
    return any(raised_in.is_relative_to(ROOT / room) for room in ROOMS)


def first_of_ours(error: BaseException | None) -> ValueError | None:
    """The first `ValueError` of this program among an error and what it was raised from."""
    while error is not None:
        if isinstance(error, ValueError) and is_ours(error):
            return error
        error = error.__cause__ or error.__context__
    return None
