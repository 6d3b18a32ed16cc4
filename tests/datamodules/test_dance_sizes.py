"""Clips of several sizes and lengths: one shape per step, the same on every process."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.batch import ClipBatch
from musicinfuser.media.latents import CacheError
from tests.dance_data import as_rank, batches, by_sample, data_module
from tests.handmade_cache import RECIPE, write_handmade_clip

TALL, SQUARE = replace(RECIPE, height=64), replace(RECIPE, height=48, width=48)
BUCKETS = [(32, 32), (64, 32), (48, 48)]


@pytest.fixture
def mixed_cache(tmp_path: Path) -> Path:
    """AIST of one size and of one more to validate with; wild clips of all three."""
    for i in range(4):
        write_handmade_clip(tmp_path, f"a{i}", number=i)
        recipe = TALL if i == 2 else RECIPE
        music = f"m{['BR0', 'HO5', 'PO1', 'BR0'][i]}"
        write_handmade_clip(tmp_path, f"v{i}", music=music, split="held_out", recipe=recipe)
    for i, recipe in enumerate([TALL, TALL, TALL, SQUARE, RECIPE]):
        write_handmade_clip(
            tmp_path, f"y{i}", number=10 + i, source="youtube", music=None, recipe=recipe
        )
    return tmp_path


LONG = RECIPE.of_shape(13, 32, 32)
LENGTHS = [(32, 32), (13, 32, 32), (64, 32)]


@pytest.fixture
def cache_of_lengths(tmp_path: Path) -> Path:
    """Studio clips of 13 frames but one, wild clips of 7 but one, and one that is tall."""
    for i in range(4):
        recipe = RECIPE if i == 3 else LONG
        write_handmade_clip(tmp_path, f"a{i}", number=i, recipe=recipe)
        music = f"m{['BR0', 'HO5', 'PO1', 'BR0'][i]}"
        held_out = {"music": music, "split": "held_out", "recipe": recipe}
        write_handmade_clip(tmp_path, f"v{i}", number=20 + i, **held_out)
    for i, recipe in enumerate([RECIPE, RECIPE, RECIPE, LONG, TALL]):
        write_handmade_clip(
            tmp_path, f"y{i}", number=10 + i, source="youtube", music=None, recipe=recipe
        )
    return tmp_path


def test_steps_of_several_lengths_have_one_shape_on_every_rank(cache_of_lengths: Path) -> None:
    ranks = [batches(cache_of_lengths, "train", rank, 2, buckets=LENGTHS) for rank in range(2)]
    found = [[(b.latent_mean.shape, b.audio.shape) for b in rank] for rank in ranks]
    assert found[0] == found[1]
    # A latent frame stands for one frame, then for six each; two features of audio per frame.
    assert set(found[0]) <= {
        ((2, 12, 2, 4, 4), (2, 14, 96)),
        ((2, 12, 3, 4, 4), (2, 26, 96)),
        ((2, 12, 2, 8, 4), (2, 14, 96)),
    }
    assert len({latents for latents, _ in found[0]}) > 1
    alone = batches(cache_of_lengths, "train", 0, 1, buckets=LENGTHS, batch_size=4)
    assert by_sample(alone) == by_sample([*ranks[0], *ranks[1]])
    rest = batches(cache_of_lengths, "train", 0, 1, buckets=LENGTHS, batch_size=4, step=2)
    assert [b.clip_ids for b in rest] == [b.clip_ids for b in alone[2:]]


def test_sources_keep_their_ratio_over_lengths(cache_of_lengths: Path) -> None:
    data = as_rank(data_module(cache_of_lengths, buckets=LENGTHS), 0, 1)
    data.setup("fit")
    assert set(data.mixture.step_shares) == {"7x32x32", "13x32x32", "7x64x32"}
    shown = [data.mixture[i] for i in range(4000)]
    names = Counter(data.training_clips.clips[k.source][k.index].clip_id for k in shown)
    for source in "ay":
        assert sum(n for name, n in names.items() if name[0] == source) == pytest.approx(
            2000, abs=4
        )
    # Three studio clips of four are long, and one wild clip of five.
    long = sum(names[name] for name in ("a0", "a1", "a2", "y3"))
    assert long == pytest.approx(2000 * (3 / 4 + 1 / 5), abs=4)


def test_another_clips_sound_is_cut_to_the_length_of_the_clip(cache_of_lengths: Path) -> None:
    options = {"buckets": LENGTHS, "validation_batch_size": 4}
    found = batches(cache_of_lengths, "validate", 0, 1, **options)
    assert [b.clip_ids for b in found] == [("v0", "v1", "v2"), ("v3",)]
    assert [b.other_audio.shape for b in found] == [(3, 26, 96), (1, 14, 96)]
    # The next of other music that is as long: of v2 that is v0, not v3; of v3 (as v0) it is v1.
    assert found[0].other_audio[:, 0, 0].tolist() == [21, 22, 20]
    assert found[1].other_audio[:, 0, 0].tolist() == [21]


def test_a_length_with_one_track_cannot_validate(cache_of_lengths: Path) -> None:
    for name in ("v1", "v2"):
        (cache_of_lengths / "clips" / "aist" / f"{name}.safetensors").unlink()
    write_handmade_clip(cache_of_lengths, "v4", music="mHO5", split="held_out")
    message = "all 1 validation clips of 13 frames or more have the music mBR0; encode clips of at"
    with pytest.raises(CacheError, match=message):
        batches(cache_of_lengths, "validate", 0, 1, buckets=LENGTHS)


@pytest.mark.parametrize("buckets", [None, [(32, 32), (64, 32)], [(13, 32, 32), (13, 64, 32)]])
def test_lengths_that_the_config_does_not_name_are_refused(
    cache_of_lengths: Path, buckets: list | None
) -> None:
    message = (
        r"\[frames, height, width\]: \[\[7, 32, 32\], \[7, 64, 32\], \[13, 32, 32\]\] in the cache"
    )
    with pytest.raises(CacheError, match=message):
        data_module(cache_of_lengths, buckets=buckets).setup("fit")


def test_a_bucket_of_the_usual_length_is_that_of_before(small_cache: Path) -> None:
    """Named with its frames or not, and as checkpoints of runs under way hold it."""
    alone = batches(small_cache, "train", 0, 1)
    named = batches(small_cache, "train", 0, 1, buckets=[(7, 32, 32), (13, 32, 32)])
    assert by_sample(alone) == by_sample(named)
    longer = batches(small_cache, "train", 0, 1, num_frames=13, buckets=[(7, 32, 32)])
    assert by_sample(alone) == by_sample(longer)
    assert data_module(small_cache).sizes == ((32, 32),)
    several = data_module(small_cache, buckets=[(7, 32, 32), (13, 32, 32), (64, 32)])
    assert several.sizes == ((32, 32), (13, 32, 32), (64, 32))


def shapes(found: list[ClipBatch]) -> list[tuple[int, ...]]:
    return [tuple(batch.latent_mean.shape[-2:]) for batch in found]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_ranks_and_accumulation_share_the_size_of_a_step(
    mixed_cache: Path, accumulation: int
) -> None:
    options = {"buckets": BUCKETS, "accumulation": accumulation, "batch_size": 2 // accumulation}
    ranks = [batches(mixed_cache, "train", rank, 2, **options) for rank in range(2)]
    assert shapes(ranks[0]) == shapes(ranks[1])
    steps = shapes(ranks[0])[::accumulation]
    assert shapes(ranks[0]) == [s for s in steps for _ in range(accumulation)]
    assert len(set(steps)) > 1
    # One process alone reads the same, and a run that starts later goes on with the same.
    alone = batches(mixed_cache, "train", 0, 1, buckets=BUCKETS, batch_size=4)
    assert by_sample(alone) == by_sample([*ranks[0], *ranks[1]])
    rest = batches(mixed_cache, "train", 0, 1, buckets=BUCKETS, batch_size=4, step=2)
    assert [b.clip_ids for b in rest] == [b.clip_ids for b in alone[2:]]


def test_validation_batches_hold_one_size_on_every_rank(mixed_cache: Path) -> None:
    options = {"buckets": BUCKETS, "validation_batch_size": 4}
    alone = batches(mixed_cache, "validate", 0, 1, **options)
    assert [b.clip_ids for b in alone] == [("v0", "v1", "v3"), ("v2",)]
    parts = [batches(mixed_cache, "validate", rank, 2, **options) for rank in range(2)]
    assert [[b.clip_ids for b in part] for part in parts] == [[("v0",), ("v2",)], [("v1", "v3")]]
    assert by_sample(parts[0]) | by_sample(parts[1]) == by_sample(alone)


@pytest.mark.parametrize("buckets", [None, [(32, 32), (64, 32)], [(64, 32), (48, 48)]])
def test_sizes_that_the_config_does_not_name_are_refused(mixed_cache: Path, buckets) -> None:
    with pytest.raises(CacheError, match=r"\[\[32, 32\], \[48, 48\], \[64, 32\]\] in the cache"):
        data_module(mixed_cache, buckets=buckets).setup("fit")


def test_one_size_among_the_named_keeps_the_order(small_cache: Path) -> None:
    alone = batches(small_cache, "train", 0, 1)
    named = batches(small_cache, "train", 0, 1, buckets=BUCKETS)
    assert by_sample(alone) == by_sample(named)
