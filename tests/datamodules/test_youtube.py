import json
import re
import unicodedata
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from datamodules.clips import RawClip, SkippedClip
from datamodules.report import left_out_of
from datamodules.youtube import YOUTUBE_EMPTY_CAPTION, YouTubeDataset, clip_stem
from tests.datamodules.conftest import cut
from tests.media.conftest import sine, write_media

SMALL = {"height": 16, "width": 24, "num_frames": 31}


def captions_by_file(dataset):
    return {spec.attributes["file"]: spec.caption for spec in dataset.clips}


VIDEO_CODECS = {".mpg": "mpeg2video", ".vob": "mpeg2video", ".flv": "flv", ".wmv": "wmv2"}


def test_videos_of_every_usual_ending_are_read_and_others_are_named(tmp_path):
    names = ["phone.m4v", "camera.MTS", "tv.ts", "old.3gp", "disc.vob", "tape.mpg", "web.flv"]
    names += ["pc.wmv", "film.m2ts", "wild.avi", "edit.mov", "nut.nut"]
    for name in names:
        suffix = Path(name).suffix.lower()
        written = write_media(
            (tmp_path / name).with_suffix(suffix),
            times=[k / 30 for k in range(60)],
            time_base=Fraction(1, 30),
            codec=VIDEO_CODECS.get(suffix, "libx264"),
            options={"bf": "0"},
            audio=sine(440, 2.0, 44100),
            rate_hz=44100,
            audio_codec="mp2" if suffix in (".mpg", ".vob", ".wmv") else "aac",
        )
        written.rename(tmp_path / name)
    (tmp_path / "phone.txt").write_text("a dancer")
    for other in ("one.xyz", "two.xyz", "three.blend"):
        (tmp_path / other).write_bytes(b"what is this")
    (tmp_path / "broken.rmvb").write_bytes(b"no video either")
    dataset = cut(YouTubeDataset, tmp_path, **SMALL)
    assert sorted(spec.path.name for spec in dataset.clips) == sorted(names)
    assert all(isinstance(dataset[index], RawClip) for index in range(len(names)))
    assert [skipped.path.name for skipped in dataset.skipped] == ["broken.rmvb"]
    assert "files that are not taken for videos: 2 .xyz, 1 .blend" in dataset.notes


def test_pictures_are_decoded_as_the_settings_say(tmp_path):
    write_media(
        tmp_path / "hd.mp4",
        times=[k / 30 for k in range(60)],
        draw=lambda k, w, h: np.full((h, w, 3), (200, 60, 50), np.uint8),
        width=1280,
        height=720,
        audio=sine(440, 2.0),
    )
    # Written by BT.601 and not tagged.
    plain, corrected = (
        cut(YouTubeDataset, tmp_path, decoding=decoding, **SMALL)[0].frames[0, 8, 12].tolist()
        for decoding in ("plain", "corrected")
    )
    assert plain == pytest.approx([200, 60, 50], abs=4)
    assert corrected[0] - plain[0] > 8
    with pytest.raises(ValueError, match="decoding must be 'corrected' or 'plain', not 'raw'"):
        cut(YouTubeDataset, tmp_path, decoding="raw", **SMALL)


def test_text_files_beside_the_videos(tmp_path, write_dance):
    write_dance(tmp_path / "my dance.mp4")
    write_dance(tmp_path / "sub folder" / "ダンス.mp4")
    write_dance(tmp_path / "silent about it.mp4")
    (tmp_path / "my dance.txt").write_text("a dancer in red\n", "utf-8")
    (tmp_path / "sub folder" / "ダンス.txt").write_text("踊る人", "utf-8")
    dataset = cut(YouTubeDataset, tmp_path, **SMALL)
    assert captions_by_file(dataset) == {
        "my dance.mp4": "a dancer in red",
        "silent about it.mp4": "a YouTube dance video",
        "sub folder/ダンス.mp4": "踊る人",
    }
    assert dataset.num_missing_captions == 1
    spec = dataset.clips[0]
    assert (spec.source, spec.crop, spec.split, spec.music) == ("youtube", "centre", "train", None)
    assert spec.base_caption == "a dance video"


@pytest.mark.parametrize("table", ["captions.jsonl", "captions.csv", "elsewhere.jsonl"])
def test_one_table_for_all_videos(tmp_path, write_dance, table):
    write_dance(tmp_path / "a.mp4")
    write_dance(tmp_path / "sub" / unicodedata.normalize("NFD", "é.mp4"))
    (tmp_path / "a.txt").write_text("from the file beside it", "utf-8")
    rows = [("a.mp4", "from the table"), ("sub/é.mp4", "two"), ("gone.mp4", "three")]
    if table.endswith(".csv"):
        text = "\n".join(["file,caption", *(",".join(row) for row in rows)])
    else:
        text = "\n".join(json.dumps({"file": f, "caption": c}) for f, c in rows)
    (tmp_path / table).write_text(text, "utf-8")
    given = {"captions": str(tmp_path / table)} if table.startswith("elsewhere") else {}
    dataset = cut(YouTubeDataset, tmp_path, **given, **SMALL)
    assert captions_by_file(dataset) == {"a.mp4": "from the file beside it", "sub/é.mp4": "two"}
    assert (dataset.num_missing_captions, dataset.num_unused_captions) == (0, 1)


def test_captions_that_cannot_be_read_or_match_no_video_are_named(tmp_path, write_dance):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_dance(tmp_path / name)
    (tmp_path / "a.txt").write_bytes("été".encode("latin-1"))
    (tmp_path / "b.txt").write_text("a dancer")
    (tmp_path / "captions.csv").write_text("file,caption\nd.mp4,x\na.mp4,y\nC.mp4,z\n")
    dataset = cut(YouTubeDataset, tmp_path, **SMALL)
    assert captions_by_file(dataset) == {"b.mp4": "a dancer", "c.mp4": YOUTUBE_EMPTY_CAPTION}
    (skip,) = dataset.skipped
    assert skip.path == tmp_path / "a.mp4"
    text = f"{tmp_path}/a.txt, line 1: cannot be read as UTF-8 text near 'été'; if it is Latin-1"
    assert skip.reason.startswith(f"its caption cannot be read: {text}")
    assert dataset.notes == [
        "videos without a caption of their own: 1",
        "captions of no video: 2 (C.mp4, d.mp4)",
    ]


def test_texts_that_are_not_read_are_named(tmp_path, write_dance):
    for name in ("a.mp4", "sub/b.mp4"):
        write_dance(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("a dancer")
    (tmp_path / "captions.jsonl").write_text("")
    (tmp_path / "captions").mkdir()
    for name in ("captions/captions_rank0.jsonl", "captions/skipped_rank0.jsonl", "notes.csv"):
        (tmp_path / name).write_text("")
    for name in ("A.TXT", "captions.CSV", "sub/captions.csv", "sub/c.txt"):
        (tmp_path / name).write_text("file,caption\na.mp4,lost\n")
    assert cut(YouTubeDataset, tmp_path, **SMALL).notes == [
        "texts and tables that are not read as captions: 4 "
        "(A.TXT, captions.CSV, sub/c.txt, sub/captions.csv)"
    ]


def test_a_named_table_must_exist(tmp_path, write_dance):
    write_dance(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"none\.csv cannot be read"):
        cut(YouTubeDataset, tmp_path, captions=str(tmp_path / "none.csv"), **SMALL)


def test_all_clips_of_a_video_share_its_caption(tmp_path, write_dance):
    write_dance(tmp_path / "a.mp4", seconds=24.0)
    (tmp_path / "a.txt").write_text("a dancer", "utf-8")
    specs = cut(YouTubeDataset, tmp_path, **SMALL).clips
    stem = clip_stem("a.mp4")
    assert [(s.clip_id, s.caption) for s in specs] == [
        (f"{stem}.seg0", "a dancer"),
        (f"{stem}.seg1", "a dancer"),
    ]


def remux(source, target, container_format):
    """The same packets in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container_format) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def test_other_containers_are_read_too(tmp_path, write_dance):
    source = write_dance(tmp_path / "elsewhere" / "made.mp4")
    (tmp_path / "in").mkdir()
    for name, container_format in [("a.mkv", "matroska"), ("b.MOV", "mov")]:
        remux(source, tmp_path / "in" / name, container_format)
    dataset = cut(YouTubeDataset, tmp_path / "in", **SMALL)
    assert [spec.path.name for spec in dataset.clips] == ["a.mkv", "b.MOV"]
    assert all(isinstance(dataset[index], RawClip) for index in range(2))


def test_clip_names_are_safe_unique_and_depend_on_the_path_alone():
    paths = [
        "a.mp4",
        "a.mkv",
        "A.mp4",
        "b/a.mp4",
        "b_a.mp4",
        "日本語.mp4",
        "中文.mp4",
        "été & café?.mp4",
        "x" * 300 + ".mp4",
        "x" * 301 + ".mp4",
        "..mp4",
        "../a.mp4",
    ]
    stems = [clip_stem(path) for path in paths]
    assert len({stem.lower() for stem in stems}) == len(paths)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", stem) for stem in stems)
    assert clip_stem("été & café?.mp4").startswith("ete_cafe-")
    assert clip_stem("日本語.mp4").startswith("video-")


def test_adding_a_video_changes_no_other_clip(tmp_path, write_dance):
    write_dance(tmp_path / "b.mp4", seconds=24.0)
    before = cut(YouTubeDataset, tmp_path, **SMALL).clips
    write_dance(tmp_path / "a.mp4")
    after = cut(YouTubeDataset, tmp_path, **SMALL).clips
    assert [spec for spec in after if spec.path.name == "b.mp4"] == before
    assert len(after) == len(before) + 1


def test_quiet_clips_are_dropped_when_read(tmp_path, write_dance):
    write_dance(tmp_path / "loud.mp4")
    write_dance(tmp_path / "quiet.mp4", loudness=0.002)
    write_dance(tmp_path / "mute.mp4", loudness=None)
    dataset = cut(YouTubeDataset, tmp_path, **SMALL)
    assert [skip.path.name for skip in dataset.skipped] == ["mute.mp4"]
    loud, quiet = dataset[0], dataset[1]
    assert isinstance(loud, RawClip) and isinstance(quiet, SkippedClip)
    assert quiet.clip_id == dataset.clips[1].clip_id
    assert re.fullmatch(r"too quiet: -\d+\.\d dBFS, less than -50", quiet.reason)
    assert isinstance(cut(YouTubeDataset, tmp_path, min_loudness_dbfs=None, **SMALL)[1], RawClip)
    dataset.skipped.append(quiet)
    assert [(r["kind"], r["reason"], r["count"]) for r in left_out_of(dataset)] == [
        ("skipped", "no sound", 1),
        ("skipped", "too quiet", 1),
    ]


def test_held_out_videos_are_chosen_by_name(tmp_path, write_dance):
    first = write_dance(tmp_path / "000.mp4")
    for number in range(1, 40):
        (tmp_path / f"{number:03d}.mp4").hardlink_to(first)
    (tmp_path / "copies").mkdir()
    for number in range(40):
        (tmp_path / "copies" / f"{number:03d}.mp4").hardlink_to(first)

    def held_out(**settings):
        clips = cut(YouTubeDataset, tmp_path, **settings, **SMALL).clips
        return {s.attributes["file"] for s in clips if s.split == "held_out"}

    assert held_out() == set()
    assert len(held_out(held_out_fraction=1.0)) == 80
    few, more = held_out(held_out_fraction=0.25), held_out(held_out_fraction=0.5)
    assert 2 <= len(few) / 2 <= 20 and few < more
    assert {f"copies/{name}" for name in few if "/" not in name} == {
        name for name in few if "/" in name
    }
    assert held_out(held_out_fraction=0.25, files=["003.mp4"]) == few & {
        "003.mp4",
        "copies/003.mp4",
    }
    with pytest.raises(ValueError, match="fraction is 2; it must be at least 0 and at most 1"):
        cut(YouTubeDataset, tmp_path, held_out_fraction=2, **SMALL)


def test_folders_without_a_usable_video_are_refused(tmp_path, write_dance):
    with pytest.raises(ValueError, match="holds no video"):
        cut(YouTubeDataset, tmp_path)
    write_dance(tmp_path / "a.mp4", seconds=1.2)
    with pytest.raises(ValueError, match="too short: 1.20 s, a clip of 1.1 s"):
        cut(YouTubeDataset, tmp_path, **SMALL)
    assert (
        YOUTUBE_EMPTY_CAPTION
        == cut(YouTubeDataset, tmp_path, edge_margin=0.0, **SMALL)[0].spec.caption
    )
