"""Intervals over trainings and clips at once."""

import math
from collections.abc import Mapping, Sequence

import torch

from dance_eval.metrics.intervals import MeanInterval, percentiles
from musicinfuser.keyed_random import generator


def bootstrap_seeds_and_clips(
    values: Sequence[Mapping[str, float]],
    *,
    seed: int,
    name: str,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> MeanInterval:
    """Percentile bootstrap interval of the mean over trainings and clips.

    Trainings and clips are both resampled, crossed: a clip that is drawn is drawn for every
    training that is. So the interval is wider than one over clips alone. With three trainings it
    says little of how others would spread; two or more clips or trainings are needed for any.

    Args:
        values: Per training a finite number by clip; clips may be missing.
        seed: The evaluation's seed.
        name: What is averaged; with the seed it fixes the resamples.
        confidence: Share of the resampled means inside the interval, in (0, 1).
        num_resamples: Number of resamples.

    Returns:
        The mean of all values, the interval, and the number of clips with a value.
    """
    clips = list(dict.fromkeys(clip for own in values for clip in own))
    trainings = [own for own in values if own]
    if not clips:
        return MeanInterval(mean=None, low=None, high=None, num_values=0)
    table = torch.tensor(
        [[own.get(clip, math.nan) for clip in clips] for own in trainings], dtype=torch.float64
    )
    mean = float(table.nanmean())
    if table.numel() == 1:
        return MeanInterval(mean=mean, low=None, high=None, num_values=1)
    stream = generator(seed, name, "bootstrap")
    rows = torch.randint(len(trainings), (num_resamples, len(trainings)), generator=stream)
    columns = torch.randint(len(clips), (num_resamples, len(clips)), generator=stream)
    means = torch.stack([table[r][:, c].nanmean() for r, c in zip(rows, columns, strict=True)])
    low, high = percentiles(means[~means.isnan()], confidence=confidence)
    return MeanInterval(mean=mean, low=low, high=high, num_values=len(clips))
