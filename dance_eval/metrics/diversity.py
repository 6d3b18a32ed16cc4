"""Diversity of all clips of a system, as AIST++ has it: DIV_k and DIV_g in its features."""

from collections.abc import Sequence

import torch

from dance_eval.metrics.clip import Descriptions, Labels, ScoredClip, SetMetric, Summary, count
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.features import FrameFeatures, with_shuffled
from dance_eval.metrics.frechet import require_reference, standardised
from dance_eval.metrics.intervals import MeanInterval, percentiles
from dance_eval.metrics.seed_diversity import pairwise_distances
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number


class Diversity(SetMetric):
    """Mean distance between all pairs of clips of a system.

    `seed_diversity.SeedDiversity` compares clips of one prompt and music; this one all, whatever
    they were made for. Much noise is diverse: read it beside the reference's own value, which is
    the one to come near, and beside that of clips with shuffled frames.

    Values:
        distance: Mean Euclidean distance over pairs; the interval resamples clips and leaves out
            pairs of a clip with itself.
        shuffled: The same of the clips with shuffled frames, for features that depend on order.
        num_reference: Clips of the reference.

    Args:
        features: Named set of features; a clip's are the mean over its frames.
        reference: Distances are in standard deviations of this system's features, as since
            Bailando; its folder must be among those scored. None: as the features are (AIST++).
        num_resamples: Of the interval.
        name: Name in tables; name the features in it.
    """

    value_names = ("distance", "shuffled", "num_reference")
    combining = frozenset({"reference", "num_resamples"})

    def __init__(
        self,
        *,
        features: FrameFeatures,
        reference: str | None = "ground truth",
        num_resamples: int = 1000,
        name: str = "diversity",
    ) -> None:
        super().__init__(name=name, part=features)
        check_number("num_resamples", num_resamples, at_least=1)
        self.features = features
        self.reference = reference
        self.num_resamples = num_resamples

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Features of a clip, and of it shuffled where they depend on order, shape (D,)."""
        return with_shuffled(clip, self.features)

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Whether the clip is the system's own, and whether it is of the reference."""
        is_own, is_reference = entry.system == system, entry.system == self.reference
        return (int(is_own), int(is_reference)) if is_own or is_reference else None

    def require(self, systems: Sequence[str]) -> None:
        """`UserError` if the reference is not among the systems."""
        if self.reference is not None:
            require_reference(self.name, self.reference, systems)

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Mean distances with their intervals, and the size of the reference."""
        own = [numbers for numbers, (is_own, _) in zip(descriptions, labels, strict=True) if is_own]
        base = [
            numbers for numbers, (_, is_base) in zip(descriptions, labels, strict=True) if is_base
        ]
        found = dict.fromkeys(("distance", "shuffled"), MeanInterval())
        if own and (base or self.reference is None):
            kinds = ("distance", "shuffled") if self.features.ordered else ("distance",)
            size = len(own[0]) // len(kinds)
            for place, value in enumerate(kinds):
                sample = torch.stack(own)[:, place * size : (place + 1) * size]
                if base:
                    sample, _ = standardised(sample, torch.stack(base)[:, :size])
                found[value] = self._mean(sample, f"{self.name}/{value}", seed, confidence)
        return found | {"num_reference": count(len(base), out_of=len(own))}

    def _mean(self, sample: torch.Tensor, name: str, seed: int, confidence: float) -> MeanInterval:
        if len(sample) < 2:
            return MeanInterval()
        gaps = pairwise_distances(sample)
        number = len(gaps)
        mean = float(gaps.sum() / (number * (number - 1)))
        if number == 2:
            return MeanInterval(mean, num_values=number)
        stream = generator(seed, name, "bootstrap")
        drawn = torch.randint(number, (self.num_resamples, number), generator=stream)
        means = []
        for rows in drawn:
            weights = torch.bincount(rows, minlength=number).double()
            pairs = weights[:, None] * weights[None]
            pairs.fill_diagonal_(0)
            if pairs.any():
                means.append((pairs * gaps).sum() / pairs.sum())
        low, high = percentiles(torch.stack(means), confidence=confidence)
        return MeanInterval(mean, low, high, number)
