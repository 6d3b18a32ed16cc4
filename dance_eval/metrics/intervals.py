"""Seeded percentile bootstrap intervals of means and medians."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

import torch

from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number

_CHUNK_DRAWS = 2_000_000


@dataclass(frozen=True)
class MeanInterval:
    """A mean and how far it can be trusted."""

    mean: float | None = None
    """Or what else is estimated of the values, such as their median; None without values."""
    low: float | None = None
    """Lower end of the interval; None with fewer than two values."""
    high: float | None = None
    num_values: int = 0

    def as_fields(self) -> dict[str, float | int | None]:
        """As metrics.json has it: mean, low, high and n."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.num_values}

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
    """Interval of the mean over clips.

    Clips are resampled as if independent of each other; clips of one track are not, so the interval
    is for these tracks, not for new ones. Below about ten values it is too narrow.

    Args:
        values: One finite number per clip.
        seed: The evaluation's seed.
        name: What is averaged; with the seed it fixes the resamples.
        confidence: Share of the resampled means inside the interval, in (0, 1).
        num_resamples: Number of resamples.
    """
    check_number("confidence", confidence, above=0, below=1)
    check_number("num_resamples", num_resamples, at_least=1)
    if not all(map(math.isfinite, values)):
        raise UserError(f"{name} holds a value that is not finite; leave it out and count it.")
    num_values = len(values)
    if num_values == 0:
        return MeanInterval()
    data = torch.tensor(values, dtype=torch.float64)
    mean = float(data.mean())
    if num_values == 1:
        return MeanInterval(mean, num_values=1)
    stream = generator(seed, name, "bootstrap")
    chunk = max(_CHUNK_DRAWS // num_values, 1)
    means = []
    for start in range(0, num_resamples, chunk):
        size = (min(chunk, num_resamples - start), num_values)
        means.append(data[torch.randint(num_values, size, generator=stream)].mean(dim=1))
    return MeanInterval(mean, *percentiles(torch.cat(means), confidence=confidence), num_values)


def bootstrap_median(
    groups: Sequence[Sequence[float]],
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> MeanInterval:
    """Interval of the median of all values, resampling groups as a whole.

    A group holds the values of an independent unit, such as the runs of one generation request; the
    other arguments are those of `bootstrap_mean`. The median stands in place of the mean, the
    number of groups that have values in place of their number.
    """
    groups = [group for group in groups if group]
    if not groups:
        return MeanInterval()
    middle = float(median(chain.from_iterable(groups)))
    if len(groups) == 1:
        return MeanInterval(middle, num_values=1)
    stream = generator(seed, name, "bootstrap")
    drawn = torch.randint(len(groups), (num_resamples, len(groups)), generator=stream).tolist()
    medians = [median(chain.from_iterable(groups[index] for index in row)) for row in drawn]
    ends = percentiles(torch.tensor(medians, dtype=torch.float64), confidence=confidence)
    return MeanInterval(middle, *ends, len(groups))


def bootstrap_seeds_and_clips(
    values: Sequence[Mapping[str, float]],
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> MeanInterval:
    """Interval of the mean over trainings and clips.

    Trainings and clips are both resampled, crossed: a clip that is drawn is drawn for every
    training that is. So the interval is wider than one over clips alone. With three trainings it
    says little of how others would spread; two or more clips or trainings are needed for any.

    Values are per training a finite number by clip; clips may be missing. The other arguments are
    those of `bootstrap_mean`; counted are the clips with a value.
    """
    clips = list(dict.fromkeys(clip for own in values for clip in own))
    trainings = [own for own in values if own]
    if not clips:
        return MeanInterval()
    table = torch.tensor(
        [[own.get(clip, math.nan) for clip in clips] for own in trainings], dtype=torch.float64
    )
    mean = float(table.nanmean())
    if table.numel() == 1:
        return MeanInterval(mean, num_values=1)
    stream = generator(seed, name, "bootstrap")
    rows = torch.randint(len(trainings), (num_resamples, len(trainings)), generator=stream)
    columns = torch.randint(len(clips), (num_resamples, len(clips)), generator=stream)
    means = torch.stack([table[r][:, c].nanmean() for r, c in zip(rows, columns, strict=True)])
    ends = percentiles(means[~means.isnan()], confidence=confidence)
    return MeanInterval(mean, *ends, len(clips))


def percentiles(estimates: torch.Tensor, *, confidence: float) -> tuple[float, float]:
    """The interval that holds such a share of estimates, float64 (R,), with equal tails."""
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = estimates.quantile(tails).tolist()
    return low, high
