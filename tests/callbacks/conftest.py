"""Reading back what a run logged and sampled."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def events() -> Callable:
    """``events(run folder)``: everything in the TensorBoard event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(root: Path) -> EventAccumulator:
        sizes = {"scalars": 0, "images": 0, "audio": 0}
        return EventAccumulator(str(root / "logs"), size_guidance=sizes).Reload()

    return read


@pytest.fixture
def scalars(events: Callable) -> Callable:
    """``scalars(run folder, tag)``: value by step."""
    return lambda root, tag: {e.step: e.value for e in events(root).Scalars(tag)}
