from pathlib import Path

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.study.pairing import match_clips


def clip(system, file, track="t.wav", **options):
    return ClipEntry(Path(system), file, system, track=track, **options)


def names(pairs):
    return [(str(pair.first.path), str(pair.second.path)) for pair in pairs]


def test_clips_are_matched_by_track_start_prompt_and_seed():
    pairs, missing = match_clips(
        [
            clip("a", "1", prompt="p", seed=0),
            clip("a", "2", prompt="p", seed=1),
            clip("a", "3", prompt="p", seed=0, track_offset_seconds=2.0),
            clip("b", "x", track="songs/t.mp3", prompt="p", seed=1),
            clip("b", "y", prompt="p", seed=0, track_offset_seconds=2.0),
            clip("b", "z", prompt="q", seed=0),
        ]
    )
    assert names(pairs) == [("a/2", "b/x"), ("a/3", "b/y")]
    assert len(missing) == 2
    assert missing[0].startswith("a/1: b has no clip left") and "'p', seed 0" in missing[0]
    assert missing[1].startswith("b/z: a has no clip left")


def test_films_without_prompt_and_seed_match_one_clip_of_their_music():
    generated = [clip("a", str(seed), prompt="p", seed=seed) for seed in range(2)]
    pairs, missing = match_clips([*generated, clip("film", "f")])
    assert names(pairs) == [("a/0", "film/f")]
    assert len(missing) == 1 and missing[0].startswith("a/1: film")


def test_exact_matches_go_before_compatible_ones():
    pairs, _ = match_clips(
        [clip("a", "1", seed=0), clip("a", "2"), clip("b", "x"), clip("b", "y", seed=0)]
    )
    assert names(pairs) == [("a/1", "b/y"), ("a/2", "b/x")]


def test_every_two_of_three_systems_are_matched():
    pairs, missing = match_clips([clip(system, "1") for system in "abc"])
    assert names(pairs) == [("a/1", "b/1"), ("a/1", "c/1"), ("b/1", "c/1")]
    assert missing == []
