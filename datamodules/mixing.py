"""Which clip comes when: a pure function of the seed and the global sample index.

Nothing is stored for a resume: the position follows from the optimizer step.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import lightning.pytorch as L
import torch
from torch.utils.data import Sampler

from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator


@dataclass(frozen=True)
class SampleKey:
    """One sample of the run."""

    source: str
    index: int
    """Position of the clip within its source."""
    sample_index: int
    """Position of the sample within the run, over steps, accumulation and ranks."""


class Mixture:
    """An endless sequence of samples that holds a ratio of sources exactly.

    Within every window of ``sum(ratio)`` samples each source appears as often as its ratio says
    (section 5.1: 1:1), spread evenly; each source is walked through in a new order per pass.
    """

    def __init__(self, sizes: dict[str, int], ratio: dict[str, int], *, seed: int) -> None:
        """Check the ratio against what is there.

        Args:
            sizes: Clips per source.
            ratio: Whole-number share per source; 0 leaves a source out.
            seed: Seed of the orders.

        Raises:
            ValueError: A share for a source that has no clips, or no share at all.
        """
        check_ratio(sizes, ratio)
        self.sizes, self.seed = sizes, seed
        self.pattern = _spread(ratio)

    def __getitem__(self, sample_index: int) -> SampleKey:
        """The sample at a position of the run."""
        cycle, place = divmod(sample_index, len(self.pattern))
        source = self.pattern[place]
        count = cycle * self.pattern.count(source) + self.pattern[:place].count(source)
        epoch, position = divmod(count, self.sizes[source])
        order = permutation(self.seed, source, epoch, self.sizes[source])
        return SampleKey(source, order[position], sample_index)


def check_ratio(sizes: Mapping[str, int], ratio: Mapping[str, int]) -> None:
    """Check a ratio against what is there.

    Args:
        sizes: Clips per source.
        ratio: Whole-number share per source.

    Raises:
        ValueError: A share for a source that has no clips, or no share at all.
    """
    for source, share in ratio.items():
        if share < 0:
            raise UserError(f"data.ratio gives {source} the share {share}; use 0 or more.")
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


def _spread(ratio: dict[str, int]) -> tuple[str, ...]:
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


class Samples(Protocol):
    """The samples of a run by position."""

    def __getitem__(self, sample_index: int, /) -> Any:
        """The sample at a position of the run."""


class StepIndexedBatches(Sampler[list]):
    """This rank's batches of a run, from the step the run is at.

    The length is that of the whole run, never what is left: on resume the trainer restores how
    many batches are done and subtracts them itself.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        num_batches: int,
        batch_size: int,
        rank: int,
        world_size: int,
        first_batch: Callable[[], int],
    ) -> None:
        """Define the batches.

        Args:
            samples: The run's samples by position; a range stands for itself.
            num_batches: Batches per rank in the whole run: optimizer steps times accumulation.
            batch_size: Samples per batch and rank.
            rank: This process among all.
            world_size: Number of processes.
            first_batch: Batches already done, asked when iteration starts.
        """
        self.samples, self.num_batches, self.batch_size = samples, num_batches, batch_size
        self.rank, self.world_size, self.first_batch = rank, world_size, first_batch

    def __len__(self) -> int:
        """Batches of the whole run on this rank."""
        return self.num_batches

    def __iter__(self) -> Iterator[list]:
        """Batches from the current position to the end of the run."""
        global_batch = self.batch_size * self.world_size
        for batch in range(self.first_batch(), self.num_batches):
            start = batch * global_batch + self.rank * self.batch_size
            yield [self.samples[start + i] for i in range(self.batch_size)]


def batches_of_run(samples: Samples, *, batch_size: int, trainer: L.Trainer) -> StepIndexedBatches:
    """This rank's batches from the trainer's current step to its last.

    Raises:
        ValueError: ``trainer.max_steps`` is not set.
    """
    if trainer.max_steps < 1:
        raise UserError("trainer.max_steps must be set: a run is counted in optimizer steps.")
    accumulation = trainer.accumulate_grad_batches
    return StepIndexedBatches(
        samples,
        num_batches=trainer.max_steps * accumulation,
        batch_size=batch_size,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        first_batch=lambda: trainer.global_step * accumulation,
    )
