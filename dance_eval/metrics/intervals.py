"""Seeded bootstrap intervals of means and medians."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

import torch

from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator

_CHUNK_DRAWS = 2_000_000


@dataclass(frozen=True)
class MeanInterval:
    """A mean and how far it can be trusted.

    Attributes:
        mean: Mean of the values, or what else is estimated of them, such as their median; None
            without values.
        low: Lower end of the interval, or None with fewer than two values.
        high: Upper end, likewise.
        num_values: How many values went in.
    """

    mean: float | None
    low: float | None
    high: float | None
    num_values: int

    def text(self, num_digits: int = 3) -> str:
        """``mean [low, high]`` for reading; only what there is."""
        if self.mean is None:
            return ""
        if self.low is None or self.high is None:
            return f"{self.mean:.{num_digits}f}"
        return f"{self.mean:.{num_digits}f} [{self.low:.{num_digits}f}, {self.high:.{num_digits}f}]"


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
) -> MeanInterval:
    """Percentile bootstrap interval of the mean over clips.

    Clips are resampled as if independent of each other; clips of one track are not, so the interval
    is for these tracks, not for new ones. Below about ten values it is too narrow.

    Args:
        values: One finite number per clip.
        seed: The evaluation's seed.
        name: What is averaged; with the seed it fixes the resamples.
        confidence: Share of the resampled means inside the interval, in (0, 1).
        num_resamples: Number of resamples.

    Returns:
        The mean and the interval; equal calls give equal results.

    Raises:
        ValueError: If the confidence is outside (0, 1), there are no resamples or a value is not
            finite.
    """
    if not 0.0 < confidence < 1.0:
        raise UserError(f"confidence is {confidence}; it must lie between 0 and 1, e.g. 0.95.")
    if num_resamples < 1:
        raise UserError(f"num_resamples is {num_resamples}; an interval needs at least 1.")
    if not all(map(math.isfinite, values)):
        raise UserError(f"{name} holds a value that is not finite; leave it out and count it.")
    num_values = len(values)
    if num_values == 0:
        return MeanInterval(mean=None, low=None, high=None, num_values=0)
    data = torch.tensor(values, dtype=torch.float64)
    mean = float(data.mean())
    if num_values == 1:
        return MeanInterval(mean=mean, low=None, high=None, num_values=1)
    stream = generator(seed, name, "bootstrap")
    chunk = max(_CHUNK_DRAWS // num_values, 1)
    means = []
    for start in range(0, num_resamples, chunk):
        size = (min(chunk, num_resamples - start), num_values)
        means.append(data[torch.randint(num_values, size, generator=stream)].mean(dim=1))
    low, high = percentiles(torch.cat(means), confidence=confidence)
    return MeanInterval(mean=mean, low=low, high=high, num_values=num_values)


def bootstrap_median(
    groups: Sequence[Sequence[float]],
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> MeanInterval:
    """Percentile bootstrap interval of the median of all values, resampling groups as a whole.

    Args:
        groups: The values of each independent unit, such as the runs of one cell.
        seed: The evaluation's seed.
        name: What is estimated; with the seed it fixes the resamples.
        confidence: Share of the resampled medians inside the interval, in (0, 1).
        num_resamples: Number of resamples.

    Returns:
        The median in place of the mean, the interval, and the number of groups that have values.
    """
    groups = [group for group in groups if group]
    if not groups:
        return MeanInterval(mean=None, low=None, high=None, num_values=0)
    middle = float(median(chain.from_iterable(groups)))
    if len(groups) == 1:
        return MeanInterval(mean=middle, low=None, high=None, num_values=1)
    stream = generator(seed, name, "bootstrap")
    drawn = torch.randint(len(groups), (num_resamples, len(groups)), generator=stream).tolist()
    medians = [median(chain.from_iterable(groups[index] for index in row)) for row in drawn]
    low, high = percentiles(torch.tensor(medians, dtype=torch.float64), confidence=confidence)
    return MeanInterval(mean=middle, low=low, high=high, num_values=len(groups))


def percentiles(estimates: torch.Tensor, *, confidence: float) -> tuple[float, float]:
    """The interval that holds such a share of resampled estimates, as much left out on each side.

    Args:
        estimates: Shape (R,), float64.
        confidence: The share, in (0, 1).
    """
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = estimates.quantile(tails).tolist()
    return low, high
