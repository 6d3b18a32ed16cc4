"""Metrics over sets of clips: what one clip alone cannot tell."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch

from dance_eval.metrics.clip import MetricPart, NamedMetric, ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import MeanInterval
from dance_eval.metrics.matching import Pieces
from musicinfuser.keyed_random import key

Descriptions = Sequence[torch.Tensor]
"""Of each clip of a set, as `SetMetric.describe` gives them."""
Labels = Sequence[tuple[int, ...]]
"""Of each clip of a set, as `SetMetric.labels_of` gives them."""
Summary = dict[str, MeanInterval]


def label(*parts: object) -> int:
    """A number of 63 bits for what a clip belongs to; equal parts give equal numbers."""
    return key(0, repr(parts), "label")


class SetMetric(NamedMetric, ABC):
    """A metric over the clips of a system, over groups of them, or against a reference.

    Every clip is described once by numbers of its own, which `evaluate.py score` keeps; from these
    and the clips' labels (whole numbers that say which group, seed or music they belong to) the
    values of the whole set are made. A subclass sets `value_names` and implements `describe`,
    `labels_of` and `combine`.

    Args:
        name: Name in tables and in metrics.json.
        part: As in `NamedMetric`.
    """

    value_names: tuple[str, ...]
    combining: ClassVar[frozenset[str]] = frozenset()
    """Names of arguments that descriptions do not depend on."""

    def __init__(self, *, name: str, part: MetricPart | None = None) -> None:
        super().__init__(name=name, part=part)
        self.pieces = Pieces()

    @abstractmethod
    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Numbers of one clip, float64, shape (D,); `UserError` if it cannot be described."""

    @abstractmethod
    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Labels of a clip in the set of a system; None if it is not part of that set."""

    @abstractmethod
    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """All of `value_names` for one system.

        Args:
            descriptions: Of each clip of the set, as `describe` gives them.
            labels: Of each clip, as `labels_of` gives them.
            seed: Of the resamples.
            confidence: Of the intervals.
        """

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """See which clips share their music."""
        self.pieces = Pieces(entries)

    def require(self, systems: Sequence[str]) -> None:
        """`UserError` if these systems lack one that the metric needs."""


def count(number: int, *, out_of: int) -> MeanInterval:
    """A plain count over so many clips, in the form of a value."""
    return MeanInterval(float(number) if out_of else None, num_values=out_of)
