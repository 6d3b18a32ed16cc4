import json

import pytest

from dance_eval.metrics.clip_folder import ClipEntry, ClipListError, list_clips


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def write_manifest(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "manifest.jsonl").write_text(text + "\n")


def test_plain_videos_belong_to_the_system_named_like_the_folder(tmp_path):
    touch(tmp_path / "ours", "b.mp4", "a.mp4", "notes.txt")
    entries, unlisted = list_clips(tmp_path / "ours")
    assert [(entry.file, entry.system, entry.track) for entry in entries] == [
        ("a.mp4", "ours", None),
        ("b.mp4", "ours", None),
    ]
    assert entries[0].path == tmp_path / "ours" / "a.mp4"
    assert unlisted == []


def test_manifest_fields_are_taken_over(tmp_path):
    touch(tmp_path, "a.mp4", "stray.mp4")
    line = {
        "file": "a.mp4",
        "system": "adapted",
        "track": "song.wav",
        "track_offset_seconds": 1.5,
        "prompt": "a dancer",
        "seed": 3,
        "num_frames": 73,
        "fps": 30.0,
        "height": 480,
        "width": 848,
        "num_steps": 64,
        "guidance_scale": 6.0,
        "sha256": "abc",
    }
    write_manifest(tmp_path, line, "")
    [entry], unlisted = list_clips(tmp_path)
    assert (entry.system, entry.track, entry.track_offset_seconds) == ("adapted", "song.wav", 1.5)
    assert (entry.num_frames, entry.fps, entry.sha256) == (73, 30.0, "abc")
    assert entry.problem is None
    assert unlisted == ["stray.mp4"]


def test_the_later_of_two_manifest_lines_counts(tmp_path):
    write_manifest(tmp_path, {"file": "a.mp4", "sha256": "old"}, {"file": "a.mp4", "sha256": "new"})
    [entry], _ = list_clips(tmp_path)
    assert entry.sha256 == "new"


@pytest.mark.parametrize(
    "line", ['{"file": "b.mp', "[]", '{"system": "x"}', '{"file": 1, "fps": []}']
)
def test_a_broken_manifest_line_is_listed_as_a_problem(tmp_path, line):
    write_manifest(tmp_path, {"file": "a.mp4"}, line)
    good, broken = list_clips(tmp_path)[0]
    assert (good.file, good.problem) == ("a.mp4", None)
    assert broken.file == "manifest.jsonl:2"
    assert "not a manifest line" in broken.problem


def test_clips_csv_names_systems_and_tracks_and_loses_no_video(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "clips.csv").write_text(
        "file,system,track,track_offset_seconds\na.mp4,ours,song.wav,2.5\ngone.mp4,theirs,,\n"
    )
    entries, _ = list_clips(tmp_path)
    found = {entry.file: (entry.system, entry.track, entry.problem is None) for entry in entries}
    assert found == {
        "a.mp4": ("ours", "song.wav", True),
        "b.mp4": (tmp_path.name, None, True),
        "gone.mp4": ("theirs", None, True),
    }
    assert entries[0].track_offset_seconds == 2.5


def test_every_documented_column_is_read(tmp_path):
    (tmp_path / "clips.csv").write_text(
        "file,system,track,start,prompt,seed,heard,num_frames,fps,sha256\n"
        'a.mp4,ours,song.wav,2.5,"a man, alone",3.0,other.wav,73,29.97,abc\n'
    )
    [entry], _ = list_clips(tmp_path)
    assert entry == ClipEntry(
        tmp_path, "a.mp4", "ours", "song.wav", 2.5, 73, 29.97, "abc", "a man, alone", 3,
        "other.wav", listed=f"{tmp_path}/clips.csv, line 2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("file,system,track,strat", "line 1: names the columns .*'strat' may be 'start'"),
        ("file,system,track,beats", "line 1: names the columns .*beats; there must be"),
        ("file,system,track,start,track_offset_seconds", "line 1: has both columns start and"),
        ("file,sistem,track", "'sistem' may be 'system'.* lacks the columns system"),
    ],
)
def test_columns_that_are_not_read_are_refused(tmp_path, columns, reason):
    (tmp_path / "clips.csv").write_text(f"{columns}\n{','.join('x' for _ in columns.split(','))}\n")
    with pytest.raises(ClipListError, match=reason):
        list_clips(tmp_path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b.mp4,ours,s.wav,soon,0", "start is 'soon'; give a number from 0 on"),
        ("b.mp4,ours,s.wav,nan,0", "start is 'nan'"),
        ("b.mp4,ours,s.wav,-1,0", "start is '-1'"),
        ("b.mp4,ours,s.wav,0,1.5", "seed is '1.5'; give a whole number"),
        (",ours,s.wav,0,1", "file is empty"),
        ("b.mp4,ours,s.wav,0", "has 4 values for 5 columns"),
        ("a.mp4,theirs,s.wav,0,1", r"a.mp4 is described in .*clips.csv, line 2, too"),
        ("./a.mp4,ours,s.wav,0,0", r"a.mp4 is described in .*clips.csv, line 2, too"),
    ],
)
def test_a_row_that_cannot_be_read_or_repeats_another_is_named(tmp_path, row, reason):
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = ["file,system,track,start,seed", "a.mp4,ours,s.wav,0,0", row]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ClipListError, match=f"clips.csv, line 3: .*{reason}"):
        list_clips(tmp_path)


def test_a_broken_manifest_line_makes_no_system_of_its_own(tmp_path):
    write_manifest(tmp_path, {"file": "a.mp4", "system": "ours"}, "{")
    assert {entry.system for entry in list_clips(tmp_path)[0]} == {"ours"}


def test_what_cannot_be_listed_is_one_sentence(tmp_path):
    with pytest.raises(ClipListError, match="is not a folder"):
        list_clips(tmp_path / "gone")
    with pytest.raises(ClipListError, match="holds no clips"):
        list_clips(tmp_path)
    (tmp_path / "clips.csv").write_text("file,method\na.mp4,ours\n")
    with pytest.raises(ClipListError, match="lacks the columns system, track"):
        list_clips(tmp_path)


@pytest.mark.parametrize("name", ["./a.mp4", "sub/../a.mp4", "{folder}/a.mp4"])
def test_a_file_has_many_names_and_counts_once(tmp_path, name):
    touch(tmp_path, "a.mp4", "b.mp4")
    named = name.format(folder=tmp_path)
    rows = f"file,system,track\n{named},ours,song.wav\n"
    (tmp_path / "clips.csv").write_text(rows)
    entries, _ = list_clips(tmp_path)
    assert {(entry.file, entry.system) for entry in entries} == {
        (named, "ours"),
        ("b.mp4", tmp_path.name),
    }
    (tmp_path / "clips.csv").write_text(f"{rows}a.mp4,ours,song.wav\n")
    with pytest.raises(ClipListError, match="line 3: a.mp4 is described in .*line 2, too"):
        list_clips(tmp_path)
    write_manifest(tmp_path, {"file": named, "seed": 1}, {"file": "a.mp4", "seed": 2})
    entries, unlisted = list_clips(tmp_path)
    assert ([entry.seed for entry in entries], unlisted) == ([2], ["b.mp4"])


def test_seeds_keep_all_their_digits(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    seeds = [2**53, 2**53 + 1]
    (tmp_path / "clips.csv").write_text(
        f"file,system,track,seed\na.mp4,x,s.wav,{seeds[0]}\nb.mp4,x,s.wav,{seeds[1]}\n"
    )
    assert [entry.seed for entry in list_clips(tmp_path)[0]] == seeds
    write_manifest(tmp_path, *({"file": f"{seed}.mp4", "seed": seed} for seed in seeds))
    assert [entry.seed for entry in list_clips(tmp_path)[0]] == seeds
    write_manifest(tmp_path, *({"file": f"{n}.mp4", "seed": s} for n, s in enumerate([7.0, " 7 "])))
    assert [entry.seed for entry in list_clips(tmp_path)[0]] == [7, 7]
    write_manifest(tmp_path, {"file": "a.mp4", "seed": 10**400}, {"file": "b.mp4", "seed": [7]})
    assert all("line" in entry.problem for entry in list_clips(tmp_path)[0])


def test_a_manifest_line_that_makes_no_sense_is_named(tmp_path):
    prompt = "one\u2028two"
    whole = json.dumps({"file": "a.mp4", "prompt": prompt}, ensure_ascii=False)
    write_manifest(tmp_path, f"\ufeff{whole}", {"file": "b.mp4", "track_offset_seconds": -1})
    first, second = list_clips(tmp_path)[0]
    assert (first.prompt, first.problem) == (prompt, None)
    assert second.problem.startswith(f"{tmp_path / 'manifest.jsonl'}, line 2: ")
    assert "track_offset_seconds is -1; give a number from 0 on" in second.problem
