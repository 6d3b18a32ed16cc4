"""Frechet distance between two sets of clips in a named set of features.

The distance of Heusel et al. 2017 (arXiv 1706.08500) between two Gaussians. It depends on the
features above all, falls with the number of clips, and below a few thousand of them compares only
systems with equal numbers of clips: the numbers are therefore given with it.
"""

from collections.abc import Sequence
from typing import Any

import torch

from dance_eval.metrics.clip import Descriptions, Labels, ScoredClip, SetMetric, Summary, count
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.features import FrameFeatures, frame_features, with_shuffled
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

    Samples have the shapes (N1, D) and (N2, D), or (N1, F, D) and (N2, F, D) where each clip counts
    F times and is drawn as a whole; the other arguments are those of `bootstrap_mean`. The distance
    stands in place of a mean, without an interval for fewer than three clips on a side, and is
    missing for fewer than two.
    """
    if min(len(first), len(second)) < 2:
        return MeanInterval()

    def between(one: torch.Tensor, other: torch.Tensor) -> float:
        return frechet_distance(one.flatten(0, -2), other.flatten(0, -2))

    distance = between(first, second)
    if min(len(first), len(second)) < 3:
        return MeanInterval(distance, num_values=len(first))
    stream = generator(seed, name, "bootstrap")
    resampled = torch.zeros(num_resamples, dtype=torch.float64)
    for index in range(num_resamples):
        rows = [torch.randint(len(x), (len(x),), generator=stream) for x in (first, second)]
        resampled[index] = between(first[rows[0]], second[rows[1]])
    low, high = percentiles(resampled - resampled.mean() + distance, confidence=confidence)
    return MeanInterval(distance, max(low, 0.0), high, len(first))


def standardised(first: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both samples in standard deviations of the reference from its mean, as Bailando's code does.

    What is the same in all of the reference is left out; that code divides it by 1e-10. Samples
    have the shapes (N1, D) and (N2, D); the results have as many columns or fewer.
    """
    spread = reference.std(dim=0, correction=0)
    varies = spread > 1e-12
    mean = reference.mean(dim=0)
    return tuple(((x - mean) / spread)[:, varies] for x in (first, reference))  # type: ignore


class FrechetDistance(SetMetric):
    """Frechet distance of each system's clips to those of a reference.

    In `motion_features.KineticFeatures` it is FID_k, in `GeometricFeatures` FID_g.

    Values:
        distance: Squared distance with its interval; n is the number of the system's clips.
        num_reference: Clips of the reference.
        shuffled: The distance of the system's clips with their frames shuffled, for features that
            depend on their order.
        reference_to_itself: The distance of one half of the reference to the other, mean over
            random halves and the range that 95 % of them have: what a perfect system of as many
            clips would have. Missing for a reference of fewer than 4.
        mixed: The distance of two random parts, as large as the sets, of both sets' clips together,
            mean and the range that 95 % of them have: what sets of one kind would have.

    Args:
        features: Named set of features; a clip's are the mean over its frames.
        reference: Name of the system that the others are compared with; its folder must be among
            those scored.
        standardise: Compare in standard deviations of the reference, as FID_k and FID_g are since
            Bailando.
        num_frames: So many frames of each clip, evenly spaced, count one by one; None: their mean.
        num_resamples: Of the interval.
        name: Name in tables; name the features in it.
    """

    value_names = ("distance", "num_reference", "shuffled", "reference_to_itself", "mixed")
    combining = frozenset({"reference", "standardise", "num_resamples"})

    def __init__(
        self,
        *,
        features: FrameFeatures,
        reference: str = "ground truth",
        standardise: bool = False,
        num_frames: int | None = None,
        num_resamples: int = 200,
        name: str = "frechet_distance",
    ) -> None:
        super().__init__(name=name, part=features)
        check_number("num_resamples", num_resamples, at_least=1)
        check_number("num_frames", num_frames, at_least=1)
        if num_frames is not None and features.ordered:
            raise UserError(f"{name}: its features are of whole clips; leave out num_frames.")
        self.features = features
        self.reference = reference
        self.standardise = standardise
        self.num_frames = num_frames
        self.num_resamples = num_resamples

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Features of a clip, shape (D,); those of its frames or shuffled frames behind each other.

        `UserError` if it has fewer frames than are asked for.
        """
        if self.num_frames is None:
            return with_shuffled(clip, self.features)
        found = frame_features(clip, self.features)
        if len(found) < self.num_frames:
            raise UserError(
                f"{clip.name}: has features of {len(found)} frames; num_frames is "
                f"{self.num_frames}."
            )
        places = torch.linspace(0, len(found) - 1, self.num_frames).round().long()
        return found[places].flatten()

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Whether the clip is of the reference, which is part of every other system's set."""
        is_reference = entry.system == self.reference
        if system == self.reference or not (is_reference or entry.system == system):
            return None
        return (int(is_reference),)

    def require(self, systems: Sequence[str]) -> None:
        """`UserError` if the reference is not among the systems."""
        require_reference(self.name, self.reference, systems)

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Distances with their intervals, and the size of the reference."""
        both: dict[int, list[torch.Tensor]] = {0: [], 1: []}
        for numbers, (is_reference,) in zip(descriptions, labels, strict=True):
            both[is_reference].append(numbers)
        found = {"distance": MeanInterval(), "shuffled": MeanInterval()}
        itself = mixed = MeanInterval()
        if both[0] and both[1]:
            own, shuffled = self._parts(torch.stack(both[0]))
            reference, _ = self._parts(torch.stack(both[1]))
            draws: dict[str, Any] = {"seed": seed, "confidence": confidence}
            half = len(reference) // 2
            if half >= 2:
                itself = self._of_parts(reference, half, half, "halves", **draws)
            if min(len(own), len(reference)) >= 2:
                together = torch.cat([own, reference])
                mixed = self._of_parts(together, len(own), len(reference), "mixed", **draws)
            for value, sample in (("distance", own), ("shuffled", shuffled)):
                if sample is not None:
                    found[value] = bootstrap_frechet(
                        *self._scaled(sample, reference),
                        seed=seed,
                        name=f"{self.name}/{value}",
                        confidence=confidence,
                        num_resamples=self.num_resamples,
                    )
        number = count(len(both[1]), out_of=len(both[0]))
        return found | {"num_reference": number, "reference_to_itself": itself, "mixed": mixed}

    def _parts(self, described: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Samples (N, F, D) of N descriptions, and of the shuffled clips where they are there."""
        if self.features.ordered:
            own, shuffled = described.chunk(2, dim=1)
            return own[:, None], shuffled[:, None]
        return described.unflatten(1, (self.num_frames or 1, -1)), None

    def _scaled(
        self, first: torch.Tensor, reference: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.standardise:
            return first, reference
        one, other = standardised(first.flatten(0, 1), reference.flatten(0, 1))
        shapes = (first.shape[:2], reference.shape[:2])
        return one.unflatten(0, shapes[0]), other.unflatten(0, shapes[1])

    def _of_parts(
        self,
        clips: torch.Tensor,
        first: int,
        second: int,
        purpose: str,
        *,
        seed: int,
        confidence: float,
        num_draws: int = 20,
    ) -> MeanInterval:
        """Distances of two random parts of clips, (N, F, D), of so many each."""
        stream = generator(seed, f"{self.name}/reference", purpose)
        distances = torch.zeros(num_draws, dtype=torch.float64)
        for index in range(num_draws):
            order = torch.randperm(len(clips), generator=stream)
            parts = self._scaled(clips[order[:first]], clips[order[first : first + second]])
            distances[index] = frechet_distance(*(part.flatten(0, 1) for part in parts))
        low, high = percentiles(distances, confidence=confidence)
        return MeanInterval(float(distances.mean()), low, high, first)


def require_reference(name: str, reference: str, systems: Sequence[str]) -> None:
    """`UserError` if the reference of a metric is not among the systems."""
    if reference not in systems:
        raise UserError(
            f"{name} compares with the system {reference!r}, but the folders hold "
            f"{', '.join(map(repr, systems))}; give its folder too, or name another reference."
        )
