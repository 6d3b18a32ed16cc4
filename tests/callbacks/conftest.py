"""Reading back what a run logged."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def events() -> Callable:
    """``events(run folder, kind)``: TensorBoard's events by tag, in the order of their steps.

    File by file: TensorBoard's own reader of folders takes `.10` to be older than `.9`.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(root: Path, kind: str) -> dict[str, list]:
        found: dict[str, list] = {}
        for path in (root / "logs").glob("events.*"):
            file = EventAccumulator(str(path), size_guidance={kind: 0}).Reload()
            of_tag = {"scalars": file.Scalars, "images": file.Images, "audio": file.Audio}[kind]
            for tag in file.Tags()[kind]:
                found.setdefault(tag, []).extend(of_tag(tag))
        return {tag: sorted(all_, key=lambda event: event.step) for tag, all_ in found.items()}

    return read


@pytest.fixture
def scalars(events: Callable) -> Callable:
    """``scalars(run folder, tag)``: value by step."""
    return lambda root, tag: {e.step: e.value for e in events(root, "scalars")[tag]}
