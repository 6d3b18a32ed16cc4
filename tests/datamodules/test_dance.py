import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datamodules import DanceDataModule
from datamodules.aist_names import tables
from datamodules.batch import ClipBatch
from datamodules.generation_requests import RequestsSpec
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import write_wav
from musicinfuser.media.latents import CacheError, caption_path, read_headers
from tests.handmade_cache import RECIPE, write_handmade_clip

HELD_OUT = {"mBR0", "mHO5", "mPO1"}


def data_module(cache: Path, **changes) -> DanceDataModule:
    options = {
        "num_frames": 7,
        "height": 32,
        "width": 32,
        "ratio": {"aist": 1, "youtube": 1},
        "batch_size": 2,
        "caption_dropout": 0.1,
        "base_prompt_probability": 0.2,
        "seed": 0,
        "num_workers": 0,
    } | changes
    return DanceDataModule(str(cache), **options)


def as_rank(data: DanceDataModule, rank: int, world_size: int, *, step: int = 0, accumulation=1):
    """Stand in for the trainer of one of several processes."""
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        global_step=step,
        max_steps=4,
        accumulate_grad_batches=accumulation,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def batches(cache: Path, stage: str, rank: int, world_size: int, **changes) -> list[ClipBatch]:
    trainer = {k: changes.pop(k) for k in ("step", "accumulation") if k in changes}
    data = as_rank(data_module(cache, **changes), rank, world_size, **trainer)
    data.setup("fit" if stage == "train" else "validate")
    return list(data.train_dataloader() if stage == "train" else data.val_dataloader())


def by_sample(all_batches: list[ClipBatch]) -> dict[int, tuple]:
    return {
        index: (
            batch.clip_ids[row],
            batch.text_lengths[row],
            batch.latent_mean[row].sum().item(),
            None if batch.music_weight is None else batch.music_weight[row].item(),
        )
        for batch in all_batches
        for row, index in enumerate(batch.sample_index)
    }


@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_together_read_what_one_alone_reads(small_cache: Path, accumulation: int) -> None:
    found = {}
    for world_size, batch_size in ((1, 4), (2, 2), (4, 1)):
        parts = [
            by_sample(
                batches(
                    small_cache,
                    "train",
                    rank,
                    world_size,
                    batch_size=batch_size,
                    accumulation=accumulation,
                    music_dropout=0.3,
                    both_dropout=0.2,
                )
            )
            for rank in range(world_size)
        ]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 16 * accumulation
        found[world_size] = {i: sample for part in parts for i, sample in part.items()}
    assert found[1] == found[2] == found[4]
    assert {weight for *_, weight in found[1].values()} == {0, 1}


def test_a_run_starts_where_the_trainer_is(small_cache: Path) -> None:
    whole = batches(small_cache, "train", 0, 1, accumulation=2)
    rest = batches(small_cache, "train", 0, 1, accumulation=2, step=3)
    assert (len(whole), len(rest)) == (8, 2)
    assert [b.sample_index for b in rest] == [b.sample_index for b in whole[6:]]
    assert by_sample(rest).items() <= by_sample(whole).items()


def test_the_loader_says_the_length_of_the_run(small_cache: Path) -> None:
    data = as_rank(data_module(small_cache), 0, 1, step=3, accumulation=2)
    data.setup("fit")
    assert len(data.train_dataloader()) == 8


def test_training_is_one_to_one_and_has_no_held_out_music(small_cache: Path) -> None:
    data = as_rank(data_module(small_cache), 0, 1)
    data.setup("fit")
    headers = {(h.source, h.clip_id): h for h in read_headers(small_cache)}
    held_out = {key for key, h in headers.items() if h.music in HELD_OUT}
    assert len(held_out) == 3
    shown = [data.mixture[i] for i in range(80)]
    assert Counter(key.source for key in shown) == {"aist": 40, "youtube": 40}
    clips = {(k.source, data.training_clips.clips[k.source][k.index].clip_id) for k in shown}
    assert clips == headers.keys() - held_out


def test_validation_is_held_out_music_only(small_cache: Path) -> None:
    found = batches(small_cache, "validate", 0, 1)
    music = {h.clip_id: h.music for h in read_headers(small_cache)}
    assert {music[b.clip_ids[0]] for b in found} == HELD_OUT
    assert all(len(b) == 1 for b in found)
    audio = {h.clip_id: b.audio for h in read_headers(small_cache) for b in found
             if b.clip_ids[0] == h.clip_id}  # fmt: skip
    for batch in found:
        others = [i for i in audio if torch.equal(audio[i], batch.other_audio)]
        assert len(others) == 1
        assert music[others[0]] != music[batch.clip_ids[0]]


def test_a_held_out_clip_marked_train_is_not_trained_on(tmp_path: Path) -> None:
    """The music decides even if the file claims otherwise; codes of AIST mean nothing elsewhere."""
    for i, music in enumerate(("mBR1", "mPO1", "mHO5")):
        write_handmade_clip(tmp_path, f"a{i}", music=music)
    write_handmade_clip(tmp_path, "b", source="stage", music="mPO1")
    ratio = {"aist": 1, "stage": 1}
    data = as_rank(data_module(tmp_path, ratio=ratio, validation_source=None), 0, 1)
    data.setup("fit")
    assert [h.clip_id for h in data.training_clips.clips["aist"]] == ["a0"]
    assert data.mixture.clips == {"32x32": {"aist": [0], "stage": [0]}}


def test_validation_shards_are_disjoint_and_complete(small_cache: Path) -> None:
    alone = by_sample(batches(small_cache, "validate", 0, 1, validation_batch_size=2))
    parts = [by_sample(batches(small_cache, "validate", rank, 2)) for rank in range(2)]
    assert sorted(i for part in parts for i in part) == [0, 1, 2]
    assert parts[0] | parts[1] == alone


def test_chosen_validation_clips_are_spread_evenly(tmp_path: Path) -> None:
    codes = sorted(tables().held_out_music)
    for i in range(20):
        write_handmade_clip(tmp_path, f"v{i:02}", music=codes[i // 2], split="held_out", number=i)
    found = batches(tmp_path, "validate", 0, 1, max_validation_clips=5)
    assert [b.clip_ids[0] for b in found] == ["v00", "v04", "v08", "v12", "v16"]
    assert len(batches(tmp_path, "validate", 0, 1, max_validation_clips=99)) == 20


def test_no_validation(small_cache: Path) -> None:
    data = as_rank(data_module(small_cache, validation_source=None), 0, 1)
    data.setup("fit")
    assert data.val_dataloader() == []


def test_without_held_out_clips_nothing_can_validate(small_cache: Path) -> None:
    with pytest.raises(CacheError, match="holds no youtube clip of held-out music"):
        data_module(small_cache, validation_source="youtube").setup("validate")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 13}, "num_frames: 7 in the cache, 13 in the config"),
        ({"height": 48}, r"\[\[32, 32\]\] in the cache, \[\[48, 32\]\] in the config\)"),
        ({"width": 48}, r"\[\[32, 32\]\] in the cache, \[\[32, 48\]\] in the config\)"),
        ({"fps": 24.0}, "fps: 30.0 in the cache, 24.0 in the config"),
    ],
)
def test_a_cache_of_other_clips_is_refused(small_cache: Path, change: dict, message: str) -> None:
    with pytest.raises(CacheError, match=message):
        data_module(small_cache, **change).setup("fit")


def test_a_mixed_cache_is_refused(small_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(small_cache, tmp_path / "cache")
    write_handmade_clip(tmp_path / "cache", "zzz", recipe=replace(RECIPE, audio_channel="first"))
    with pytest.raises(CacheError, match="encoded differently .*audio_channel: first, not mean"):
        data_module(tmp_path / "cache").setup("fit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"music_dropout": -0.1}, "music_dropout is -0.1; it must be at least 0 and at most 1"),
        (
            {"music_dropout": 0.7, "both_dropout": 0.3},
            "are shares of all samples, but add up to 1.1; make it at most 1",
        ),
        ({"caption_dropout": 1.1}, "caption_dropout is 1.1; it must be at least 0 and at most 1"),
        (
            {"base_prompt_probability": -0.1},
            "base_prompt_probability is -0.1; it must be",
        ),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"validation_batch_size": 0}, "validation_batch_size is 0; it must be at least 1"),
        (
            {"max_validation_clips": 0},
            "max_validation_clips is 0; it must be at least 1, or null",
        ),
        ({"num_frames": 8}, r"num_frames is 8; Mochi takes 6k \+ 1 frames, e.g. 7 or 13"),
        ({"height": 40}, "height is 40 px; it must be a multiple of 16"),
    ],
)
def test_bad_settings(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_module(tmp_path, **change)


def test_batches_move_and_requests_stay(small_cache: Path) -> None:
    data = data_module(small_cache)
    batch = batches(small_cache, "train", 0, 1)[0]
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.audio.device.type == "meta"
    requests = [GenerationRequest("a.wav", "p", 0, 7, 32, 32)]
    assert data.transfer_batch_to_device(requests, torch.device("meta"), 0) is requests


def test_requests_are_shared_out(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", torch.zeros(16_000), rate_hz=16_000)
    spec = RequestsSpec(music=[f"{tmp_path}/a.wav"], prompts=["p"], seeds=[0, 1, 2, 3, 4])
    seeds = []
    for rank in range(2):
        data = as_rank(data_module(tmp_path, generation=spec), rank, 2)
        data.setup("predict")
        seeds.append([request.seed for batch in data.predict_dataloader() for request in batch])
    assert seeds == [[0, 2, 4], [1, 3]]


def test_predict_needs_something_to_generate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="predict needs data.generation"):
        data_module(tmp_path).setup("predict")


def test_more_processes_than_validation_clips_are_refused(small_cache: Path) -> None:
    with pytest.raises(CacheError, match="3 clips to validate with, fewer than the 4 processes"):
        batches(small_cache, "validate", 0, 4)


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


def test_captions_of_a_source_that_is_left_out_may_be_missing(
    small_cache: Path, tmp_path: Path
) -> None:
    cache = shutil.copytree(small_cache, tmp_path / "cache")
    texts: dict[str, set[str]] = {"aist": set(), "youtube": set()}
    for header in read_headers(cache):
        texts[header.source] |= {header.caption, header.base_caption}
    for text in texts["youtube"] - texts["aist"]:
        caption_path(cache, text).unlink()
    data_module(cache, ratio={"aist": 1, "youtube": 0}).setup("fit")
    with pytest.raises(CacheError, match="lacks the features of"):
        data_module(cache).setup("fit")
