import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules.aist_names import tables
from datamodules.generation_requests import RequestsSpec
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import write_wav
from musicinfuser.media.latents import CacheError, caption_path, read_headers
from tests.dance_data import as_rank, batches, by_sample, data_module
from tests.handmade_cache import RECIPE, write_handmade_clip

HELD_OUT = {"mBR0", "mHO5", "mPO1"}


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
    with pytest.raises(
        CacheError,
        match="holds no youtube held-out clip, so nothing can validate; .* to aist or null",
    ):
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
