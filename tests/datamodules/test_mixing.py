import random
from collections import Counter
from types import SimpleNamespace

import pytest

from datamodules.mixing import Mixture, StepIndexedBatches

SIZES = {"aist": 7, "youtube": 3}
RATIOS = [{"aist": a, "youtube": y} for a, y in ((1, 1), (3, 1), (1, 0), (2, 3), (0, 2))]


def mixture_of(sizes: dict[str, int], ratio: dict[str, int], *, seed: int) -> Mixture:
    """Of clips of one size."""
    buckets = {source: ["480x848"] * size for source, size in sizes.items()}
    return Mixture(buckets, ratio, samples_per_step=4, seed=seed)


def sources(mixture: Mixture, start: int, length: int) -> Counter:
    return Counter(mixture[i].source for i in range(start, start + length))


def test_one_to_one_in_every_even_window() -> None:
    mixture = mixture_of(SIZES, {"aist": 1, "youtube": 1}, seed=0)
    for start in range(30):
        for half in (1, 2, 5, 20):
            assert sources(mixture, start, 2 * half) == {"aist": half, "youtube": half}


@pytest.mark.parametrize("ratio", RATIOS)
def test_any_whole_ratio_holds_in_every_window_of_its_sum(ratio: dict[str, int]) -> None:
    mixture = mixture_of(SIZES, ratio, seed=0)
    present = {source: share for source, share in ratio.items() if share}
    for start in range(25):
        assert sources(mixture, start, sum(ratio.values())) == present


@pytest.mark.parametrize("ratio", RATIOS)
def test_sources_are_spread_evenly(ratio: dict[str, int]) -> None:
    """At no moment is a source a whole sample ahead of or behind its share."""
    mixture, total = mixture_of(SIZES, ratio, seed=0), sum(ratio.values())
    for length in range(1, 40):
        for source, share in ratio.items():
            due = length * share / total
            assert abs(sources(mixture, 0, length)[source] - due) < 1


def test_three_sources() -> None:
    sizes, ratio = {"a": 2, "b": 3, "c": 4}, {"a": 1, "b": 2, "c": 4}
    assert sources(mixture_of(sizes, ratio, seed=0), 14, 7) == ratio


def passes(mixture: Mixture, source: str, num_passes: int) -> list[list[int]]:
    keys = (mixture[i] for i in range(10_000))
    clips = [k.index for k, _ in zip((k for k in keys if k.source == source), range(1000))]  # noqa: B905
    size = len(mixture.clips["480x848"][source])
    return [clips[p * size : (p + 1) * size] for p in range(num_passes)]


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("ratio", RATIOS[:2] + RATIOS[3:4])
def test_every_clip_once_per_pass_in_a_new_order(source: str, ratio: dict[str, int]) -> None:
    found = passes(mixture_of(SIZES, ratio, seed=3), source, num_passes=8)
    for one in found:
        assert sorted(one) == list(range(SIZES[source]))
    assert len({tuple(one) for one in found}) > 3


def test_seeds_and_sources_have_orders_of_their_own() -> None:
    sizes = {"aist": 50, "youtube": 50}
    ratio = {"aist": 1, "youtube": 1}
    orders = [
        tuple(passes(mixture_of(sizes, ratio, seed=seed), source, 1)[0])
        for seed in (0, 1)
        for source in sizes
    ]
    assert len(set(orders)) == 4


def test_a_sample_is_a_function_of_its_index() -> None:
    mixture = mixture_of(SIZES, RATIOS[3], seed=1)
    in_order = [mixture[i] for i in range(200)]
    assert [key.sample_index for key in in_order] == list(range(200))
    shuffled = list(range(200))
    random.Random(0).shuffle(shuffled)
    fresh = mixture_of(SIZES, RATIOS[3], seed=1)
    assert {i: fresh[i] for i in shuffled} == dict(enumerate(in_order))
    assert mixture_of(SIZES, RATIOS[3], seed=1)[10**9] == mixture[10**9]


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        ({"aist": 1, "tiktok": 1}, "asks for tiktok, but the cache has no training clip of it"),
        ({"aist": 0, "youtube": 0}, "every source the share 0"),
        ({}, "every source the share 0"),
        ({"aist": 2, "youtube": -1}, "youtube is -1; it must be at least 0"),
    ],
)
def test_refuses_a_ratio_that_cannot_be_held(ratio: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture_of(SIZES, ratio, seed=0)


def test_source_without_clips_may_have_no_share() -> None:
    mixture = mixture_of({"aist": 2}, {"aist": 1, "youtube": 0}, seed=0)
    assert sources(mixture, 0, 6) == {"aist": 6}


def trainer_at(step: int, max_steps: int, *, rank: int = 0, world_size: int = 1) -> SimpleNamespace:
    return SimpleNamespace(
        global_step=step,
        max_steps=max_steps,
        accumulate_grad_batches=1,
        global_rank=rank,
        world_size=world_size,
    )


def rank_batches(
    mixture: Mixture, *, batch_size: int, world_size: int, num_batches: int, first: int = 0
) -> list[list[list[int]]]:
    """Sample indices by rank and batch."""
    return [
        [
            [key.sample_index for key in batch]
            for batch in StepIndexedBatches(
                mixture,
                batch_size=batch_size,
                trainer=trainer_at(first, num_batches, rank=rank, world_size=world_size),
            )
        ]
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 2), (4, 1)])
def test_a_global_batch_does_not_depend_on_the_number_of_processes(
    world_size: int, batch_size: int, accumulation: int
) -> None:
    mixture = mixture_of(SIZES, RATIOS[0], seed=0)
    # Accumulation splits a step of the same global size into smaller batches.
    batch_size = batch_size * 2 // accumulation
    found = rank_batches(
        mixture, batch_size=batch_size, world_size=world_size, num_batches=5 * accumulation
    )
    everything = [i for rank in found for batch in rank for i in batch]
    assert sorted(everything) == list(range(40))
    for step in range(5):
        batches = slice(step * accumulation, (step + 1) * accumulation)
        together = [i for rank in found for batch in rank[batches] for i in batch]
        assert sorted(together) == list(range(8 * step, 8 * (step + 1)))


def test_ranks_read_the_clips_of_the_mixture() -> None:
    mixture = mixture_of(SIZES, RATIOS[0], seed=0)
    trainer = trainer_at(0, 3, rank=1, world_size=2)
    batches = StepIndexedBatches(mixture, batch_size=2, trainer=trainer)
    assert list(batches) == [[mixture[i], mixture[i + 1]] for i in (2, 6, 10)]


def test_starts_in_the_middle_and_keeps_the_length_of_the_run() -> None:
    mixture, trainer = mixture_of(SIZES, RATIOS[0], seed=0), trainer_at(0, 6)
    batches = StepIndexedBatches(mixture, batch_size=2, trainer=trainer)
    whole = list(batches)
    assert (len(batches), len(whole)) == (6, 6)
    trainer.global_step = 4
    assert list(batches) == whole[4:]
    assert len(batches) == 6
    trainer.global_step = 6
    assert list(batches) == []
    # A step may take several batches.
    trainer.accumulate_grad_batches, trainer.max_steps, trainer.global_step = 2, 3, 2
    assert list(batches) == whole[4:]
