"""Which clip comes when: a pure function of the seed and the global sample index.

Nothing is stored for a resume: the position follows from the optimizer step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import lightning.pytorch as L
import torch
from torch.utils.data import Sampler

from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number


@dataclass(frozen=True)
class SampleKey:
    """One sample of the run."""

    source: str
    index: int
    """Position of the clip within its source."""
    sample_index: int
    """Position of the sample within the run, over steps, accumulation and ranks."""


class Mixture:
    """An endless sequence of samples that holds a ratio of sources (section 5.1: 1:1).

    Clips of two sizes cannot be stacked, and ranks that step together should do equal work, so all
    samples of an optimizer step, over accumulation and ranks, have one size (a bucket). A sample is
    of source s and bucket b with the share

        ratio of s * clips of s in b / clips of s,

    so a source that lacks a bucket has no sample there and makes up for it in the others. Steps are
    spread over the buckets by the sums of these shares, and the samples of a bucket over its
    sources by the shares within it. Each source is walked through bucket by bucket, in a new order
    per pass.

    With one bucket the ratio is exact in every window of ``sum(ratio)`` samples. Whole steps cannot
    hold it at every moment: with B buckets and S sources a source is at most (B - 1) / 2 steps and
    B * (S - 1) / 2 samples ahead of or behind its share, however long the run. Each rounding in
    `place_of` is off by at most one half, B - 1 of them choose a step's bucket, and S - 1 in each
    bucket a sample's source.

    Attributes:
        step_shares: Whole-number share of the optimizer steps, by bucket.
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
            UserError: A share for a source that has no clips, or no share at all.
        """
        sizes = {source: len(names) for source, names in buckets.items()}
        check_ratio(sizes, ratio)
        self.samples_per_step, self.seed = samples_per_step, seed
        self.clips: dict[str, dict[str, list[int]]] = {}
        for source, share in ratio.items():
            for index, bucket in enumerate(buckets[source] if share else ()):
                self.clips.setdefault(bucket, {}).setdefault(source, []).append(index)
        # Whole numbers: every share times the least common multiple of the numbers of clips.
        unit = math.lcm(*(sizes[source] for source, share in ratio.items() if share))
        self.shares = {
            bucket: {s: ratio[s] * len(own) * (unit // sizes[s]) for s, own in clips.items()}
            for bucket, clips in sorted(self.clips.items())
        }
        self.step_shares = {bucket: sum(shares.values()) for bucket, shares in self.shares.items()}
        self._cycle = _spread(ratio) if len(self.clips) == 1 else ()

    def __getitem__(self, sample_index: int) -> SampleKey:
        """The sample at a position of the run."""
        step, place = divmod(sample_index, self.samples_per_step)
        bucket, num_steps = place_of(step, self.step_shares)
        if self._cycle:
            # Runs that are under way depend on this order, which differs for three sources.
            num_cycles, place = divmod(sample_index, len(self._cycle))
            source = walk = self._cycle[place]
            count = num_cycles * self._cycle.count(source) + self._cycle[:place].count(source)
        else:
            place += num_steps * self.samples_per_step
            source, count = place_of(place, self.shares[bucket])
            walk = f"{source} {bucket}"
        clips = self.clips[bucket][source]
        epoch, position = divmod(count, len(clips))
        order = permutation(self.seed, walk, epoch, len(clips))
        return SampleKey(source, clips[order[position]], sample_index)


def place_of(index: int, shares: Mapping[str, int]) -> tuple[str, int]:
    """Spread an endless sequence over names as evenly as their shares, at least 1 each, allow.

    The first name takes every item at which its due, rounded, grows; the rest are spread over the
    other names in the same way. For two names this is the order of `_spread`; it needs no table of
    a whole cycle, which here may be billions of samples long.

    Returns:
        The name at a position of the sequence, and how often it came before.
    """
    (name, share), *rest = shares.items()
    total = sum(shares.values())
    before, after = ((2 * i * share + total) // (2 * total) for i in (index, index + 1))
    return (name, before) if after > before else place_of(index - before, dict(rest))


def check_ratio(sizes: Mapping[str, int], ratio: Mapping[str, int]) -> None:
    """Check a ratio against the number of clips per source.

    Raises:
        UserError: A share for a source that has no clips, or no share at all.
    """
    for source, share in ratio.items():
        check_number(f"data.ratio.{source}", share, at_least=0)
        if share and not sizes.get(source):
            raise UserError(
                f"data.ratio asks for {source}, but the cache has no training clip of it; "
                f"encode some or set its share to 0 (there are: {sizes})."
            )
    if not sum(ratio.values()):
        raise UserError("data.ratio gives every source the share 0; nothing would be trained.")


@lru_cache(maxsize=64)
def permutation(seed: int, what: str, epoch: int, size: int) -> list[int]:
    """The order of one pass over ``size`` clips; ``what`` keeps walks apart."""
    stream = generator(seed, epoch, f"order of {what}")
    return torch.randperm(size, generator=stream).tolist()


def _spread(ratio: Mapping[str, int]) -> tuple[str, ...]:
    """One cycle of sources, as even as whole numbers allow; 1:1 alternates."""
    total = sum(ratio.values())
    due = dict.fromkeys(ratio, 0)
    pattern = []
    for _ in range(total):
        for source, share in ratio.items():
            due[source] += share
        chosen = max(due, key=lambda source: due[source])
        due[chosen] -= total
        pattern.append(chosen)
    return tuple(pattern)


class StepIndexedBatches(Sampler[list]):
    """This rank's batches of a run, from the trainer's current step to its last.

    The length is that of the whole run, never what is left: on resume the trainer restores how
    many batches are done and subtracts them itself.
    """

    def __init__(self, samples: Mixture | range, *, batch_size: int, trainer: L.Trainer) -> None:
        """Define the batches.

        Args:
            samples: The run's samples by position; a range stands for itself.
            batch_size: Samples per batch and rank.
            trainer: Has ``max_steps``; its step decides where iteration starts.

        Raises:
            UserError: ``trainer.max_steps`` is not set.
        """
        if trainer.max_steps < 1:
            raise UserError("trainer.max_steps must be set: a run is counted in optimizer steps.")
        self.samples, self.batch_size, self.trainer = samples, batch_size, trainer

    def __len__(self) -> int:
        """Batches of the whole run on this rank."""
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    def __iter__(self) -> Iterator[list]:
        """Batches from the current position to the end of the run."""
        trainer = self.trainer
        for batch in range(trainer.global_step * trainer.accumulate_grad_batches, len(self)):
            start = (batch * trainer.world_size + trainer.global_rank) * self.batch_size
            yield [self.samples[start + i] for i in range(self.batch_size)]
