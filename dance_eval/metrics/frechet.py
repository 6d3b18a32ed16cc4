"""Frechet distance between two sets of clips in a named set of features.

The distance of Heusel et al. 2017 (arXiv 1706.08500) between two Gaussians. It depends on the
features above all, falls with the number of clips, and below a few thousand of them compares only
systems with equal numbers of clips: the numbers are therefore given with it.
"""

from collections.abc import Sequence

import torch

from dance_eval.metrics.clip import Descriptions, Labels, ScoredClip, SetMetric, Summary, count
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.features import FrameFeatures, clip_features
from dance_eval.metrics.intervals import MeanInterval, percentiles
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two samples.

    With A the centred sample over the root of N - 1, C is A^T A and the trace of the root is the
    sum of the singular values of A1 A2^T: no square root of a matrix that has none of full rank,
    and no more than the smaller of N and D rows. Covariances are unbiased; both samples have two
    rows or more, shapes (N1, D) and (N2, D).
    """
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"Samples of shape {tuple(first.shape)} and {tuple(second.shape)} have no Frechet "
            "distance; give two clips or more of the same features."
        )
    (m1, a1), (m2, a2) = _centred(first.double()), _centred(second.double())
    root = torch.linalg.svdvals(a1 @ a2.T).sum()
    squared = (m1 - m2).square().sum() + a1.square().sum() + a2.square().sum() - 2 * root
    return max(float(squared), 0.0)


def _centred(sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, and rows A with A^T A the covariance."""
    mean = sample.mean(dim=0)
    rows = (sample - mean) / (len(sample) - 1) ** 0.5
    return mean, torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows


def bootstrap_frechet(
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 200,
) -> MeanInterval:
    """The distance and how far it can be trusted, both samples being resampled.

    A resample repeats clips, which makes the distance larger. The interval therefore has the spread
    of the resampled distances, moved to lie around the estimate.

    Samples have the shapes (N1, D) and (N2, D); the other arguments are those of `bootstrap_mean`.
    The distance stands in place of a mean, without an interval for fewer than three rows on a side,
    and is missing for fewer than two.
    """
    if min(len(first), len(second)) < 2:
        return MeanInterval()
    distance = frechet_distance(first, second)
    if min(len(first), len(second)) < 3:
        return MeanInterval(distance, num_values=len(first))
    stream = generator(seed, name, "bootstrap")
    resampled = torch.zeros(num_resamples, dtype=torch.float64)
    for index in range(num_resamples):
        rows = [torch.randint(len(x), (len(x),), generator=stream) for x in (first, second)]
        resampled[index] = frechet_distance(first[rows[0]], second[rows[1]])
    low, high = percentiles(resampled - resampled.mean() + distance, confidence=confidence)
    return MeanInterval(distance, max(low, 0.0), high, len(first))


class FrechetDistance(SetMetric):
    """Frechet distance of each system's clips to those of a reference.

    Values:
        distance: Squared distance with its interval; n is the number of the system's clips.
        num_reference: Clips of the reference.

    Args:
        features: Named set of features; a clip's are the mean over its frames.
        reference: Name of the system that the others are compared with; its folder must be among
            those scored.
        num_resamples: Of the interval.
        name: Name in tables; name the features in it.
    """

    value_names = ("distance", "num_reference")
    combining = frozenset({"reference", "num_resamples"})

    def __init__(
        self,
        *,
        features: FrameFeatures,
        reference: str = "ground truth",
        num_resamples: int = 200,
        name: str = "frechet_distance",
    ) -> None:
        super().__init__(name=name, part=features)
        check_number("num_resamples", num_resamples, at_least=1)
        self.features = features
        self.reference = reference
        self.num_resamples = num_resamples

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Features of a clip, shape (D,)."""
        return clip_features(clip, self.features)

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Whether the clip is of the reference, which is part of every other system's set."""
        is_reference = entry.system == self.reference
        if system == self.reference or not (is_reference or entry.system == system):
            return None
        return (int(is_reference),)

    def require(self, systems: Sequence[str]) -> None:
        """`UserError` if the reference is not among the systems."""
        if self.reference not in systems:
            raise UserError(
                f"{self.name} compares with the system {self.reference!r}, but the folders hold "
                f"{', '.join(map(repr, systems))}; give its folder too, or name another reference."
            )

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Distance with its interval, and the size of the reference."""
        both: dict[int, list[torch.Tensor]] = {0: [], 1: []}
        for numbers, (is_reference,) in zip(descriptions, labels, strict=True):
            both[is_reference].append(numbers)
        own, reference = both[0], both[1]
        distance = MeanInterval()
        if own and reference:
            distance = bootstrap_frechet(
                torch.stack(own),
                torch.stack(reference),
                seed=seed,
                name=f"{self.name}/distance",
                confidence=confidence,
                num_resamples=self.num_resamples,
            )
        return {"distance": distance, "num_reference": count(len(reference), out_of=len(own))}
