"""Diversity: how far the clips of one prompt and music are apart that differ in their seed only."""

from collections.abc import Sequence

import torch

from dance_eval.metrics.clip import (
    Descriptions,
    Labels,
    ScoredClip,
    SetMetric,
    Summary,
    count,
    label,
)
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.features import FrameFeatures, clip_features
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import start_of
from musicinfuser.errors import UserError


def pairwise_distances(features: torch.Tensor) -> torch.Tensor:
    """Euclidean distances between all rows of (N, D), float64 (N, N)."""
    # Not pdist or cdist: both may take the distance through dot products and lose digits.
    return torch.stack([(features.double() - row).norm(dim=-1) for row in features.double()])


def mean_pairwise_distance(features: torch.Tensor) -> float:
    """Mean Euclidean distance over all pairs of (N, D), AIST++'s diversity; `UserError` for one."""
    if len(features) < 2:
        raise UserError(f"{len(features)} clips make no pair; diversity needs at least 2.")
    distances = pairwise_distances(features)
    first, second = torch.triu_indices(len(features), len(features), offset=1)
    return float(distances[first, second].mean())


class SeedDiversity(SetMetric):
    """Mean distance between clips of one prompt and music with different seeds.

    Values, means over prompts and music:
        distance: `mean_pairwise_distance` in the features named.
        to_other: Mean distance to the clips of other prompts or music: that of strangers. Missing
            where there is one prompt and music.
        num_alone: Clips that are the only one of their prompt and music.

    Of two clips of one prompt, music and seed, such as those of two trainings, the first counts.
    Clips without a seed count as different.

    Args:
        features: Named set of features; a clip's are the mean over its frames.
        name: Name in tables; name the features in it.
    """

    value_names = ("distance", "to_other", "num_alone")

    def __init__(self, *, features: FrameFeatures, name: str = "seed_diversity") -> None:
        super().__init__(name=name, part=features)
        self.features = features

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Features of a clip, shape (D,)."""
        return clip_features(clip, self.features)

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Prompt and music, and seed."""
        if entry.system != system:
            return None
        music = self.pieces.of(entry), self.pieces.conditioned_on(entry), start_of(entry)
        own = (str(entry.folder), entry.file) if entry.seed is None else (entry.seed,)
        return label(entry.prompt, *music), label(*own)

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Mean over prompts and music with two or more seeds, and a count."""
        groups: dict[int, dict[int, torch.Tensor]] = {}
        for numbers, (group, own) in zip(descriptions, labels, strict=True):
            groups.setdefault(group, {}).setdefault(own, numbers)
        several = [torch.stack(list(members.values())) for members in groups.values()]
        distances = [mean_pairwise_distance(members) for members in several if len(members) > 1]
        apart = _to_others(several)
        alone = sum(len(members) == 1 for members in several)
        found = {
            value: bootstrap_mean(
                numbers, seed=seed, name=f"{self.name}/{value}", confidence=confidence
            )
            for value, numbers in (("distance", distances), ("to_other", apart))
        }
        return found | {"num_alone": count(alone, out_of=len(labels))}


def _to_others(groups: Sequence[torch.Tensor]) -> list[float]:
    """Of each group of rows, (N, D), the mean distance to all rows of the others."""
    if len(groups) < 2:
        return []
    distances = pairwise_distances(torch.cat(list(groups)))
    found, end = [], 0
    for group in groups:
        start, end = end, end + len(group)
        rows = distances[start:end]
        num_others = len(distances) - len(group)
        rest = float(rows.sum() - rows[:, start:end].sum())
        found.append(rest / (len(group) * num_others))
    return found
