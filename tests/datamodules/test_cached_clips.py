import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules.batch import collate
from datamodules.cached_clips import (
    TrainingClips,
    ValidationClips,
    clips_to_train_on,
    share_of,
)
from datamodules.mixing import SampleKey
from musicinfuser.media.latents import CacheError, caption_path
from tests.handmade_cache import RECIPE, header, write_handmade_clip

NUM_SAMPLES = 5000


def training_clips(cache: Path, clips: dict, **changes) -> TrainingClips:
    options = {"caption_dropout": 0.1, "base_prompt_probability": 0.2, "seed": 0} | changes
    return TrainingClips(clips, cache_dir=cache, **options)


@pytest.fixture
def clips(tmp_path: Path) -> dict:
    return {
        "aist": [write_handmade_clip(tmp_path, f"a{i}", number=i) for i in range(2)],
        "youtube": [
            write_handmade_clip(tmp_path, f"y{i}", number=10 + i, source="youtube", music=None)
            for i in range(2)
        ],
    }


def test_held_out_music_of_aist_is_never_trained_on(tmp_path: Path) -> None:
    """Table 7, whatever split a cache names; other sources may have music of that name."""
    train = {"music": "mBR0", "split": "train"}
    headers = [
        header(tmp_path, "held_out", **train),
        header(tmp_path, "own", **train | {"music": "mBR1"}),
        header(tmp_path, "later", **train | {"music": "mBR1", "split": "held_out"}),
        header(tmp_path, "wild", source="youtube", **train),
    ]
    found = {s: [h.clip_id for h in own] for s, own in clips_to_train_on(headers).items()}
    assert found == {"aist": ["own"], "youtube": ["wild"]}


def test_a_sample_is_the_clip_of_its_key(tmp_path: Path, clips: dict) -> None:
    dataset = training_clips(tmp_path, clips, caption_dropout=0.0, base_prompt_probability=0.0)
    found = dataset[SampleKey("youtube", 1, sample_index=77)]
    assert (found.sample_index, found.clip_id, found.other_audio) == (77, "y1", None)
    assert torch.equal(found.latent_mean, torch.full((12, 2, 4, 4), 11.0))
    assert torch.equal(found.latent_logvar, torch.full((12, 2, 4, 4), -11.0))
    assert torch.equal(found.audio, torch.full((14, 96), 11.0))
    # "caption of y1" has 13 letters, and the handmade features say so.
    assert torch.equal(found.text, torch.full((13, 64), 13.0))
    assert torch.equal(found.latents_mean, torch.tensor(RECIPE.latents_mean))
    assert torch.equal(found.latents_std, torch.tensor(RECIPE.latents_std))


def test_dropped_and_base_captions_come_as_often_as_asked(tmp_path: Path, clips: dict) -> None:
    dataset, header = training_clips(tmp_path, clips), clips["aist"][1]
    shown = [dataset.caption(header, i) for i in range(NUM_SAMPLES)]
    assert set(shown) == {"", "a dance video", "caption of a1"}
    # Within four standard deviations of 0.1 and of 0.9 * 0.2.
    assert shown.count("") / NUM_SAMPLES == pytest.approx(0.1, abs=4 * 0.3 / NUM_SAMPLES**0.5)
    base = shown.count("a dance video") / NUM_SAMPLES
    assert base == pytest.approx(0.18, abs=4 * 0.384 / NUM_SAMPLES**0.5)


@pytest.mark.parametrize(
    ("dropout", "base", "expected"),
    [(1.0, 0.0, ""), (1.0, 1.0, ""), (0.0, 1.0, "a dance video"), (0.0, 0.0, "caption of a0")],
)
def test_certain_captions(
    tmp_path: Path, clips: dict, dropout: float, base: float, expected: str
) -> None:
    dataset = training_clips(tmp_path, clips, caption_dropout=dropout, base_prompt_probability=base)
    shown = {dataset.caption(clips["aist"][0], i) for i in range(300)}
    assert shown == {expected}
    assert len(dataset[SampleKey("aist", 0, 0)].text) == len(expected)


def test_captions_are_keyed_by_seed_and_sample_only(tmp_path: Path, clips: dict) -> None:
    dataset = training_clips(tmp_path, clips)

    def kinds(headers, indices, dataset=dataset) -> dict[int, str]:
        return {
            i: dataset.caption(h, i).replace(h.clip_id, "it")
            for h, i in zip(headers, indices, strict=True)
        }

    one = [clips["aist"][0]] * 500
    shuffled = list(range(500))
    random.Random(0).shuffle(shuffled)
    assert kinds(one, shuffled) == kinds(one, range(500))
    assert kinds([clips["youtube"][1]] * 500, range(500)) == kinds(one, range(500))
    assert kinds(one, range(500), training_clips(tmp_path, clips, seed=1)) != kinds(one, range(500))


def test_music_text_and_both_are_dropped_as_often_as_asked(tmp_path: Path, clips: dict) -> None:
    plain = training_clips(tmp_path, clips)
    dataset = training_clips(tmp_path, clips, music_dropout=0.1, both_dropout=0.05)
    header, indices = clips["aist"][1], range(NUM_SAMPLES)
    lacks = [frozenset(dataset.lacks(i)) for i in indices]
    for parts, share in (({"text"}, 0.1), ({"music"}, 0.1), ({"text", "music"}, 0.05)):
        spread = (share * (1 - share) / NUM_SAMPLES) ** 0.5
        assert lacks.count(frozenset(parts)) / NUM_SAMPLES == pytest.approx(share, abs=4 * spread)
    for i, lacking in zip(indices, lacks, strict=True):
        assert (dataset.caption(header, i) == "") == ("text" in lacking)
        assert dataset.music_weight(i) == ("music" not in lacking)
        # Whoever lacks the text alone is who lacked it before; nobody else's caption changes.
        assert (lacking == {"text"}) == (plain.caption(header, i) == "")
        if not lacking:
            assert dataset.caption(header, i) == plain.caption(header, i)
    without = [n for n in indices if "music" in lacks[n]][:3]
    items = [dataset[SampleKey("aist", 1, n)] for n in (*without, 0)]
    assert collate(items).music_weight.tolist() == [0, 0, 0, dataset.music_weight(0)]
    # What was dropped is there all the same, of the shape of any other.
    assert all(torch.equal(item.audio, items[-1].audio) for item in items)


def test_without_music_dropout_no_batch_speaks_of_it(tmp_path: Path, clips: dict) -> None:
    dataset = training_clips(tmp_path, clips)
    items = [dataset[SampleKey("aist", 0, i)] for i in range(3)]
    assert collate(items).music_weight is None
    assert collate(items).to(torch.device("meta")).music_weight is None
    certain = training_clips(tmp_path, clips, caption_dropout=0.0, music_dropout=1.0)
    assert {certain.music_weight(i) for i in range(300)} == {0.0}
    assert {certain.caption(clips["aist"][0], i) for i in range(300)} > {"caption of a0"}


def test_a_dropped_caption_has_no_tokens(tmp_path: Path, clips: dict) -> None:
    dataset = training_clips(tmp_path, clips)
    for i in range(60):
        text = dataset[SampleKey("aist", 0, i)].text
        assert text.shape == (len(dataset.caption(clips["aist"][0], i)), 64)


def test_missing_caption_features_are_noticed_at_once(tmp_path: Path, clips: dict) -> None:
    caption_path(tmp_path, "caption of y0").unlink()
    with pytest.raises(CacheError, match="lacks the features of 1 captions, e.g. 'caption of y0'"):
        training_clips(tmp_path, clips)
    training_clips(tmp_path, {"aist": clips["aist"]})
    with pytest.raises(CacheError, match="caption of y0"):
        ValidationClips([*clips["aist"], clips["youtube"][0]], cache_dir=tmp_path)


def test_validation_pairs_a_clip_with_other_music(tmp_path: Path) -> None:
    music = ["mBR0", "mBR0", "mPO1", "mBR0"]
    headers = [
        write_handmade_clip(tmp_path, f"v{i}", number=i, music=music[i], split="held_out")
        for i in range(4)
    ]
    dataset = ValidationClips(headers, cache_dir=tmp_path)
    items = [dataset[i] for i in range(len(dataset))]
    assert [item.sample_index for item in items] == [0, 1, 2, 3]
    assert [item.audio[0, 0].item() for item in items] == [0, 1, 2, 3]
    partners = [int(item.other_audio[0, 0]) for item in items]
    assert partners == [2, 2, 3, 2]
    assert all(music[p] != music[i] for i, p in enumerate(partners))
    # Validation always shows the clip's own caption.
    assert [len(item.text) for item in items] == [len("caption of v0")] * 4


def test_of_unknown_music_each_video_is_a_piece(tmp_path: Path) -> None:
    """As of videos in the wild: clips of one video are not each other's other music."""
    files = ["/a.mp4", "/a.mp4", "/b.mp4", "/a.mp4"]
    headers = [
        write_handmade_clip(tmp_path, f"v{i}", number=i, music=None, attributes={"file": file})
        for i, file in enumerate(files)
    ]
    dataset = ValidationClips(headers, cache_dir=tmp_path)
    partners = [int(dataset[i].other_audio[0, 0]) for i in range(len(dataset))]
    assert partners == [2, 2, 3, 2]
    assert [dataset[i].music for i in range(4)] == files
    with pytest.raises(CacheError, match="have the music /a.mp4; encode clips of at least two"):
        ValidationClips([headers[0], headers[1]], cache_dir=tmp_path)


@pytest.mark.parametrize("num_clips", [1, 3])
def test_one_music_alone_cannot_validate(tmp_path: Path, num_clips: int) -> None:
    headers = [write_handmade_clip(tmp_path, f"v{i}", music="mBR0") for i in range(num_clips)]
    with pytest.raises(CacheError, match="have the music mBR0; encode clips of at least two"):
        ValidationClips(headers, cache_dir=tmp_path)


def test_validation_batches_hold_one_size(tmp_path: Path) -> None:
    tall = replace(RECIPE, height=64)
    headers = [
        write_handmade_clip(
            tmp_path, f"v{i}", number=i, music=f"m{i}", recipe=tall if i in (1, 4, 5) else RECIPE
        )
        for i in range(7)
    ]
    dataset = ValidationClips(headers, cache_dir=tmp_path)
    assert dataset.batches(range(7), batch_size=2) == [[0, 2], [3, 6], [1, 4], [5]]
    assert dataset.batches([5, 3, 1], batch_size=3) == [[5, 1], [3]]
    for indices in dataset.batches(range(7), batch_size=3):
        batch = collate([dataset[i] for i in indices])
        assert batch.sample_index == tuple(indices)
        # The other music is that of the next clip, whatever its size.
        assert batch.other_audio is not None
        assert batch.other_audio[:, 0, 0].tolist() == [(i + 1) % 7 for i in indices]
    same = ValidationClips(headers[2:4], cache_dir=tmp_path)
    assert same.batches(range(2), batch_size=1) == [[0], [1]]


def test_a_smaller_share_is_part_of_a_larger_one_and_keeps_the_order() -> None:
    clips = [f"clip {n:02d}" for n in range(40)]
    half = share_of(clips, 0.5, source="aist", seed=1)
    quarter = share_of(clips, 0.25, source="aist", seed=1)
    assert len(half) == 20 and len(quarter) == 10
    assert set(quarter) < set(half) and half == sorted(half)
    assert share_of(clips, 0.5, source="aist", seed=2) != half
    assert share_of(clips, 1.0, source="aist", seed=1) == clips
    assert len(share_of(clips, 0.001, source="aist", seed=1)) == 1
