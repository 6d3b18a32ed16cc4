from pathlib import Path

import pytest

from dance_eval.metrics.clip_folder import ClipEntry, content_digest
from dance_eval.metrics.matching import Pieces, clip_groups, matched, track_of


def clip(system, file="c.mp4", track=None, *, folder=None, **fields):
    return ClipEntry(Path(folder or system), file, system, track=track, **fields)


def pieces_of(*entries):
    pieces = Pieces(entries)
    found = [pieces.of(entry) for entry in entries]
    return [found.index(piece) for piece in found], pieces


@pytest.fixture
def songs(tmp_path):
    files = {"a/audio.wav": b"one", "b/audio.wav": b"two", "copy/a.wav": b"one"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_files_are_one_piece_by_their_content_wherever_they_lie(songs, monkeypatch):
    monkeypatch.chdir(songs)
    found, pieces = pieces_of(
        clip("s", "0", "a/audio.wav"),
        clip("s", "1", "b/audio.wav"),
        clip("t", "0", str(songs / "copy" / "a.wav")),
        clip("t", "1", "../b/audio.wav", folder=songs / "t"),
    )
    assert found == [0, 1, 0, 1]
    assert pieces.notes == []


def test_one_song_each_is_told_apart_by_content_too(songs):
    found, pieces = pieces_of(
        clip("s", "0", str(songs / "a/audio.wav")), clip("t", "0", str(songs / "b/audio.wav"))
    )
    assert found == [0, 1]
    assert pieces.notes == []


def test_a_file_that_changes_is_another_piece(songs):
    song = songs / "a" / "audio.wav"
    before = content_digest(song)
    assert content_digest(song) == before
    song.write_bytes(b"three")
    assert content_digest(song) != before
    assert content_digest(songs / "gone.wav") is None and content_digest(None) is None


def test_names_alone_take_as_many_folders_as_it_needs():
    lists = [("s", "x/stems/drums.wav"), ("s", "y/stems/drums.wav"), ("s", "z/bass.wav")]
    lists += [("t", "/data/y/stems/drums.flac"), ("t", "/data/x/stems/drums.flac")]
    found, pieces = pieces_of(*(clip(s, str(n), t) for n, (s, t) in enumerate(lists)))
    assert found == [0, 1, 2, 1, 0]
    # A path that ends in the other one is no other name.
    assert pieces.notes == []


def test_a_name_that_fits_two_pieces_is_neither():
    found, _ = pieces_of(
        clip("s", "0", "a/audio.wav"), clip("s", "1", "b/audio.wav"), clip("t", "0", "audio.wav")
    )
    assert found == [0, 1, 2]


def test_a_version_in_a_name_is_no_suffix():
    found, _ = pieces_of(clip("s", "0", "song 1.5"), clip("s", "1", "song 1.6"))
    assert found == [0, 1]
    assert track_of(clip("s", "0", "music/My Song.mp3")) == "My Song"
    # The same letter, written in two ways.
    assert pieces_of(clip("s", "0", "\u00fc.wav"), clip("t", "0", "u\u0308.wav"))[0] == [0, 0]


def test_a_recording_without_a_track_is_known_by_its_name(songs):
    recording = clip("truth", "a.mp4")
    found, pieces = pieces_of(recording, clip("s", "0", str(songs / "copy" / "a.wav")))
    assert found == [0, 0] and pieces.notes == []


def test_joining_by_names_alone_is_said():
    _, pieces = pieces_of(clip("s", "0", "x/a.wav"), clip("t", "0", "y/a.mp3"))
    assert pieces.notes == [
        "x/a and y/a are taken for one piece by their names, since the files are not all here."
    ]


def test_what_was_heard_is_a_piece_too(songs):
    own = clip("s", "0", str(songs / "a/audio.wav"))
    other = clip("s", "1", str(songs / "b/audio.wav"), heard=str(songs / "copy/a.wav"))
    silent = clip("s", "2", str(songs / "b/audio.wav"), heard="nothing")
    pieces = Pieces([own, other, silent])
    found = [pieces.conditioned_on(entry) for entry in (own, other, silent)]
    assert found == [None, pieces.of(own), "nothing"]


def test_titles_name_folders_where_they_must():
    tracks = ["m/a/audio.wav", "m/b/audio.wav", "c.wav"]
    entries = [clip("s", str(n), track) for n, track in enumerate(tracks)]
    pieces = Pieces(entries)
    assert [pieces.title(entry) for entry in entries] == ["a/audio", "b/audio", "c"]


def seeds(system, *numbers, prompt="p"):
    return [clip(system, f"{n}.mp4", "t.wav", prompt=prompt, seed=n) for n in numbers]


def test_only_clips_of_one_seed_pair_and_the_rest_is_named():
    entries = seeds("a", 0, 1) + seeds("b", 1, 2)
    pairs, alone = matched(entries, Pieces(entries))
    assert [(p.first.path, p.second.path) for p in pairs] == [(Path("a/1.mp4"), Path("b/1.mp4"))]
    assert [(entry.path, system) for entry, system in alone] == [
        (Path("a/0.mp4"), "b"), (Path("b/2.mp4"), "a")
    ]  # fmt: skip
    groups = [{s: c.file for s, c in group.clips.items()} for group in clip_groups(entries)]
    assert groups == [{"a": "0.mp4"}, {"a": "1.mp4", "b": "1.mp4"}, {"b": "2.mp4"}]


def test_a_recording_stands_beside_every_seed():
    film = clip("film", "t.mp4", prompt="p")
    found = [list(group.clips) for group in clip_groups([film, *seeds("a", 0, 1)])]
    assert found == [["film", "a"], ["film", "a"]]
    other = clip("film", "t.mp4", prompt="q")
    assert [list(g.clips) for g in clip_groups([other, *seeds("a", 0)])] == [["a"], ["film"]]


def test_starts_are_compared_to_the_millisecond():
    entries = [
        clip("a", "0", "t.wav", track_offset_seconds=0.1 + 0.2),
        clip("b", "0", "t.wav", track_offset_seconds=0.3),
        clip("b", "1", "t.wav", track_offset_seconds=0.31),
    ]
    pairs, alone = matched(entries, Pieces(entries))
    assert len(pairs) == len(alone) == 1
