"""Counts and thumbnails of a cache, of clips and of what was left out."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.clips import crop_box
from datamodules.report import (
    clip_counts,
    evenly_chosen,
    left_out_counts,
    main,
    read_left_out,
    write_report,
)
from musicinfuser.media.latents import CacheError, read_headers
from musicinfuser.media.video import probe_video, read_clip
from tests.conftest import AIST_FILES, YOUTUBE_FILES, write_moving_square

NUM_CLIPS = len(AIST_FILES) + len(YOUTUBE_FILES)


class Cards(HTMLParser):
    """Per card its heading, its words and its picture."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cards: list[dict] = []
        self.heading, self._in_heading = "", False
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        if tag == "figure":
            self.cards.append({"heading": self.heading, "text": "", "picture": None})
        if tag == "img":
            code = dict(attrs)["src"].removeprefix("data:image/jpeg;base64,")
            self.cards[-1]["picture"] = Image.open(io.BytesIO(base64.b64decode(code)))
        if tag == "h2":
            self.heading = ""
        self._in_heading = tag == "h2" or (self._in_heading and tag == "small")
        self._in_card = tag != "h2" and bool(self.cards)

    def handle_endtag(self, tag) -> None:
        if tag == "h2":
            self._in_heading = False
        if tag == "figure":
            self._in_card = False

    def handle_data(self, data) -> None:
        if self._in_heading:
            self.heading += data
        elif self.cards and self._in_card:
            self.cards[-1]["text"] += data + "\n"


@pytest.fixture
def cache(small_cache: Path, tmp_path: Path) -> Path:
    """A copy of the session's cache that a test may spoil."""
    return Path(shutil.copytree(small_cache, tmp_path / "cache"))


def note(cache: Path, rank: int, *rows: dict) -> None:
    text = "".join(json.dumps({"source": "youtube"} | row) + "\n" for row in rows)
    (cache / f"skipped_rank{rank}.jsonl").write_text(text)


def cards_of(out: Path) -> list[dict]:
    return Cards((out / "index.html").read_text(encoding="utf-8")).cards


def test_counts_per_source_genre_camera_and_size(small_cache: Path, tmp_path: Path) -> None:
    rows = clip_counts(read_headers(small_cache))
    assert sum(row["clips"] for row in rows) == NUM_CLIPS
    assert rows[0] == {
        "source": "aist", "split": "held_out", "genre": "BR", "camera": "c01", "size": "32x32",
        "videos": 1, "clips": 1,
    }  # fmt: skip
    train = {row["genre"]: row["clips"] for row in rows if row["split"] == "train"}
    assert train == {"BR": 2, "HO": 1, "JB": 1, "PO": 1, "": len(YOUTUBE_FILES)}
    text = write_report(small_cache, tmp_path / "out", pictures_per_group=0)
    assert (tmp_path / "out" / "counts.md").read_text() == text
    assert text.startswith(f"{NUM_CLIPS} clips of {NUM_CLIPS} videos.\n\n| source ")
    assert "| aist    | train    | BR    | c01    | 32x32 |      2 |     2 |" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["counts.md"]


def test_every_clip_has_its_own_frame_and_description(small_cache: Path, tmp_path: Path) -> None:
    write_report(small_cache, tmp_path)
    cards = cards_of(tmp_path)
    headers = {header.clip_id: header for header in read_headers(small_cache)}
    assert len(cards) == len(headers)
    for card in cards:
        clip_id, caption, facts = card["text"].strip().split("\n")
        header = headers.pop(clip_id)
        own = header.attributes
        assert caption == header.caption
        assert f"{header.split.replace('_', ' ')} · 32x32" in facts
        assert f"starts at {float(own['start_seconds']):.2f} s" in facts
        assert card["picture"].size == (240, 240)
        frame = read_clip(
            own["file"],
            start_seconds=float(own["start_seconds"]),
            num_frames=7,
            height=240,
            width=240,
            crop=crop_box(probe_video(own["file"]), size=(32, 32), crop=own["crop"]),
        )[3]
        assert np.abs(np.asarray(card["picture"], float) - frame.numpy()).mean() < 4
    headings = {card["heading"] for card in cards}
    assert "aist, train, genre BR, camera c01 2 of 2" in headings
    assert "youtube, train 3 of 3" in headings


def test_a_few_of_many_are_chosen_evenly(small_cache: Path, tmp_path: Path) -> None:
    assert evenly_chosen(range(10), 3) == [1, 5, 8]
    assert evenly_chosen(range(3), 3) == evenly_chosen(range(3), None) == [0, 1, 2]
    chosen = evenly_chosen(range(17_640), 12)
    assert len(chosen) == 12 and set(np.diff(chosen)) == {1470}
    write_report(small_cache, tmp_path, pictures_per_group=1)
    cards = cards_of(tmp_path)
    assert len(cards) == len({card["heading"] for card in cards})
    assert "youtube, train 1 of 3" in {card["heading"] for card in cards}


def test_what_was_left_out_is_shown_where_it_can_be_read(cache: Path, tmp_path: Path) -> None:
    write_moving_square(tmp_path / "quiet.mp4", number=1)
    (tmp_path / "text <b>.mp4").write_text("no video")
    note(
        cache,
        0,
        {"file": str(tmp_path / "quiet.mp4"), "reason": "too quiet: -60", "clip_id": "q.seg0"},
        {"file": str(tmp_path / "text <b>.mp4"), "reason": "cannot be read: no video"},
        {"kind": "shots", "reason": "shot shorter than a clip", "count": 40},
    )
    note(cache, 1, {"file": str(tmp_path / "gone.mp4"), "reason": "cannot be read: gone"})
    text = write_report(cache, tmp_path / "out")
    assert left_out_counts(read_left_out(cache, [])) == [
        {"source": "youtube", "left out": kind, "reason": reason, "count": count}
        for kind, reason, count in [
            ("clip", "too quiet", 1),
            ("file", "cannot be read", 2),
            ("shots", "shot shorter than a clip", 40),
        ]
    ]
    assert "| youtube | shots    | shot shorter than a clip |    40 |" in text
    cards = cards_of(tmp_path / "out")
    quiet, broken, gone = (
        next(card for card in cards if name in card["text"]) for name in ("q.seg0", "text", "gone")
    )
    assert quiet["heading"] == "youtube, clip left out: too quiet 1 of 1"
    assert quiet["picture"].size == (240, 135) and "too quiet: -60" in quiet["text"]
    assert broken["picture"] is None and f"No frame of {tmp_path}/text <b>.mp4" in broken["text"]
    assert gone["picture"] is None and f"{tmp_path}/gone.mp4 is no longer there" in gone["text"]
    assert gone["heading"] == "youtube, file left out: cannot be read 2 of 2"


def test_lists_of_earlier_jobs_do_not_count_twice(cache: Path) -> None:
    headers = read_headers(cache)
    encoded = next(header for header in headers if header.source == "youtube")
    note(cache, 0, {"file": "/a.mp4", "reason": "no sound"})
    note(
        cache,
        1,
        {"file": "/a.mp4", "reason": "no sound"},
        {"file": encoded.attributes["file"], "reason": "cannot be read: then"},
        {"file": "/b.mp4", "reason": "too quiet: then", "clip_id": encoded.clip_id},
        {"file": "/b.mp4", "reason": "too quiet: now", "clip_id": "other"},
    )
    assert [(row["file"], row["reason"]) for row in read_left_out(cache, headers)] == [
        ("/a.mp4", "no sound"),
        ("/b.mp4", "too quiet: now"),
    ]


def test_videos_that_are_gone_leave_a_sentence(
    small_cache: Path, media: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    (media / "youtube").rename(moved)
    try:
        write_report(small_cache, tmp_path / "out")
    finally:
        moved.rename(media / "youtube")
    wild = [card for card in cards_of(tmp_path / "out") if card["heading"].startswith("youtube")]
    assert len(wild) == 3 and all(card["picture"] is None for card in wild)
    assert all(re.search(r"youtube/.*\.mp4 is no longer there", card["text"]) for card in wild)


def test_the_command(small_cache: Path, tmp_path: Path, capsys) -> None:
    main([str(small_cache), "--out", str(tmp_path / "a"), "--pictures-per-group", "1"])
    few = len(cards_of(tmp_path / "a"))
    printed = capsys.readouterr().out
    assert f"{NUM_CLIPS} clips of" in printed and str(tmp_path / "a" / "index.html") in printed
    main([str(small_cache), "--out", str(tmp_path / "b"), "--all"])
    assert few < len(cards_of(tmp_path / "b")) == NUM_CLIPS
    with pytest.raises(SystemExit, match="none holds no encoded clips"):
        main([str(tmp_path / "none"), "--out", str(tmp_path / "c")])
    assert not (tmp_path / "c").exists()


def test_a_broken_clip_is_named(cache: Path, tmp_path: Path) -> None:
    path = next((cache / "clips").rglob("*.safetensors"))
    path.write_bytes(b"nothing")
    with pytest.raises(CacheError, match=f"{path.name} is not an encoded clip"):
        write_report(cache, tmp_path / "out")
