"""Metrics over sets of clips: what one clip alone cannot tell."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch

from dance_eval.metrics.clip import NamedMetric, ScoredClip
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


class SetMetric(NamedMetric):
    """A metric over the clips of a system, over pairs or cells of them, or against a reference.

    Every clip is described once by numbers of its own, which `evaluate.py score` keeps; from these
    and the clips' labels (whole numbers that say which cell, seed or music they belong to) the
    values of the whole set are made. A subclass sets `value_names` and implements `describe`,
    `labels_of` and `combine`.

    As a torchmetric, one instance collects the clips of one system; descriptions and labels are
    synchronised over processes.

    Args:
        name: Name in tables and in metrics.json.
    """

    value_names: tuple[str, ...]
    combining: ClassVar[frozenset[str]] = frozenset()
    """Names of arguments that descriptions do not depend on."""
    numbers: list[torch.Tensor]
    lengths: list[torch.Tensor]
    labels: list[torch.Tensor]

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.pieces = Pieces()
        for state in ("numbers", "lengths", "labels"):
            self.add_state(state, [], dist_reduce_fx="cat")

    @abstractmethod
    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Numbers of one clip, float64, shape (D,); ValueError if it cannot be described."""

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
        """ValueError if these systems lack one that the metric needs."""

    def update(self, clip: ScoredClip, entry: ClipEntry, *, system: str | None = None) -> None:
        """Add one clip to the set of a system; None: of its own."""
        labels = self.labels_of(entry, system=entry.system if system is None else system)
        if labels is None:
            return
        numbers = self.describe(clip)
        self.numbers.append(numbers.double().to(self.device))
        self.lengths.append(torch.tensor([len(numbers)], device=self.device))
        self.labels.append(torch.tensor([labels], device=self.device))

    def compute(self) -> dict[str, torch.Tensor]:
        """Each of `value_names` without its interval; NaN where the set has none."""
        descriptions: list[torch.Tensor] = []
        labels: list[tuple[int, ...]] = []
        if len(self.lengths):
            # Lists become tensors when processes are merged.
            numbers, lengths, rows = map(_joined, (self.numbers, self.lengths, self.labels))
            descriptions = list(numbers.cpu().split(lengths.tolist()))
            labels = [tuple(row) for row in rows.tolist()]
        values = self.combine(descriptions, labels)
        return {
            name: torch.tensor(float("nan") if value.mean is None else value.mean)
            for name, value in values.items()
        }


def _joined(state: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    return state if isinstance(state, torch.Tensor) else torch.cat(state)


def count(number: int, *, out_of: int) -> MeanInterval:
    """A plain count over so many clips, in the form of a value."""
    mean = float(number) if out_of else None
    return MeanInterval(mean=mean, low=None, high=None, num_values=out_of)


def summarise_sets(
    entries: Sequence[ClipEntry],
    metric: SetMetric,
    *,
    read: Callable[[int], torch.Tensor | None],
    systems: Sequence[str],
    seed: int,
    confidence: float,
) -> dict[str, Summary]:
    """The values of every system.

    Args:
        entries: All clips.
        metric: What is measured.
        read: Description of the clip of that number, or None if it has none.
        systems: Their names.
        seed: Of the resamples.
        confidence: Of the intervals.
    """
    described = [(entry, read(number)) for number, entry in enumerate(entries)]
    summaries = {}
    for system in systems:
        descriptions, labels = [], []
        for entry, numbers in described:
            own = metric.labels_of(entry, system=system)
            if numbers is not None and own is not None:
                descriptions.append(numbers)
                labels.append(own)
        summaries[system] = metric.combine(descriptions, labels, seed=seed, confidence=confidence)
    return summaries
