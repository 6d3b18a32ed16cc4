"""Trainings that only try things out."""

from typing import Any

MODES = ("fast_dev_run", "overfit_batches")


def throw_away_mode(trainer: Any) -> str | None:
    """The option that makes a training one to throw away, or None.

    Such a training leaves nothing in the run's folder that a later one takes up: no checkpoint,
    export, progress or record. Nor does ``ckpt_path: last`` take up a run for it.
    """
    return next((mode for mode in MODES if getattr(trainer, mode)), None)
