"""Which clip comes when if the clips have several sizes: one size per optimizer step.

Clips of two sizes cannot be stacked, and ranks that step together should do equal work, so all
samples of an optimizer step, over accumulation and ranks, have one size (a bucket). A sample is of
source s and bucket b with the share

    ratio of s * clips of s in b / clips of s,

so a source that lacks a bucket has no sample there and makes up for it in the others. Steps are
spread over the buckets by the sums of these shares, and the samples of a bucket over its sources by
the shares within it. As in `mixing`, all of it is a function of the seed and the sample index.

Whole steps cannot hold a ratio of samples at every moment: with B buckets and S sources a source is
at most (B - 1) / 2 steps and B * (S - 1) / 2 samples ahead of or behind its share, however long the
run. Each rounding in `place_of` is off by at most one half, B - 1 of them choose a step's bucket,
and S - 1 in each bucket a sample's source.
"""

import math
from collections.abc import Mapping, Sequence

from datamodules.mixing import Mixture, SampleKey, check_ratio, permutation


def place_of(index: int, shares: Mapping[str, int]) -> tuple[str, int]:
    """Spread an endless sequence over names as evenly as their shares allow.

    The first name takes every item at which its due, rounded, grows; the rest are spread over the
    other names in the same way. For two names this is the order of `Mixture`; it needs no table of
    a whole cycle, which here may be billions of samples long.

    Args:
        index: Position in the sequence.
        shares: Whole-number share of each name, at least 1.

    Returns:
        The name at this position, and how often it came before.
    """
    (name, share), *rest = shares.items()
    total = sum(shares.values())
    before, after = ((2 * i * share + total) // (2 * total) for i in (index, index + 1))
    return (name, before) if after > before else place_of(index - before, dict(rest))


class BucketMixture:
    """An endless sequence of samples that holds a ratio of sources, one bucket per step.

    Each source is walked through bucket by bucket, in a new order per pass.
    """

    def __init__(
        self,
        buckets: Mapping[str, Sequence[str]],
        ratio: Mapping[str, int],
        *,
        samples_per_step: int,
        seed: int,
    ) -> None:
        """Sort the clips.

        Args:
            buckets: Per source the bucket of each clip.
            ratio: Whole-number share per source; 0 leaves a source out.
            samples_per_step: Batch size times accumulation times ranks.
            seed: Seed of the orders.

        Raises:
            ValueError: A share for a source that has no clips, or no share at all.
        """
        check_ratio({source: len(names) for source, names in buckets.items()}, ratio)
        self.samples_per_step, self.seed = samples_per_step, seed
        self.clips: dict[str, dict[str, list[int]]] = {}
        for source, share in ratio.items():
            for index, bucket in enumerate(buckets[source] if share else ()):
                self.clips.setdefault(bucket, {}).setdefault(source, []).append(index)
        # Whole numbers: every share times the least common multiple of the numbers of clips.
        unit = math.lcm(*(len(buckets[source]) for source, share in ratio.items() if share))
        self.shares = {
            bucket: {s: ratio[s] * len(own) * (unit // len(buckets[s])) for s, own in clips.items()}
            for bucket, clips in sorted(self.clips.items())
        }
        self.step_shares = {bucket: sum(shares.values()) for bucket, shares in self.shares.items()}

    def __getitem__(self, sample_index: int) -> SampleKey:
        """The sample at a position of the run."""
        step, place = divmod(sample_index, self.samples_per_step)
        bucket, num_steps = place_of(step, self.step_shares)
        place += num_steps * self.samples_per_step
        source, count = place_of(place, self.shares[bucket])
        clips = self.clips[bucket][source]
        epoch, position = divmod(count, len(clips))
        order = permutation(self.seed, f"{source} {bucket}", epoch, len(clips))
        return SampleKey(source, clips[order[position]], sample_index)


def mix(
    buckets: Mapping[str, Sequence[str]],
    ratio: dict[str, int],
    *,
    samples_per_step: int,
    seed: int,
) -> Mixture | BucketMixture:
    """The order of a run: `Mixture` if all clips that take part are of one bucket.

    Args:
        buckets: Per source the bucket of each clip.
        ratio: Whole-number share per source.
        samples_per_step: Batch size times accumulation times ranks.
        seed: Seed of the orders.

    Raises:
        ValueError: A ratio that cannot be held.
    """
    taking_part = {b for source, names in buckets.items() if ratio.get(source) for b in names}
    if len(taking_part) > 1:
        return BucketMixture(buckets, ratio, samples_per_step=samples_per_step, seed=seed)
    return Mixture({source: len(names) for source, names in buckets.items()}, ratio, seed=seed)
