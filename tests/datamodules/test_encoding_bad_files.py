"""The encoding job leaves out what cannot be read, says why, and encodes the rest."""

import json
from pathlib import Path

import pytest
import torch

from musicinfuser.media.latents import read_headers
from musicinfuser.media.video_writing import write_video
from tests.conftest import encode_arguments, write_moving_square
from train import main


@pytest.fixture
def bad_media(tmp_path: Path) -> Path:
    """Two healthy files among broken ones."""
    root = tmp_path / "media"
    aist, wild = root / "aist", root / "youtube"
    write_moving_square(aist / "gBR_sBM_c01_d04_mBR1_ch03.mp4", number=0)
    write_moving_square(wild / "踊り ✨ (1).mp4", number=1)
    whole = (wild / "踊り ✨ (1).mp4").read_bytes()
    (aist / "gBR_sBM_c01_d04_mBR2_ch04.mp4").write_bytes(b"")
    (aist / "my dance.mp4").write_bytes(whole)
    (wild / "空.mp4").write_bytes(b"")
    (wild / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (wild / "text.mp4").write_text("this is no video\n" * 100)
    (wild / "latin.mp4").write_bytes(whole)
    (wild / "latin.txt").write_bytes("été".encode("latin-1"))
    (wild / "captions.csv").write_text("file,caption\ngone.mp4,a dancer\n")
    frames = torch.zeros(36, 54, 96, 3, dtype=torch.uint8)
    write_video(wild / "mute.mp4", frames, fps=30.0)
    write_video(
        wild / "silent.mp4", frames, fps=30.0, audio=torch.zeros(53_000), audio_rate_hz=44_100
    )
    return root


def test_bad_files_are_skipped_with_reasons(
    small_parts: Path, bad_media: Path, tmp_path: Path, capsys
) -> None:
    cache = tmp_path / "cache"
    main(encode_arguments(small_parts, bad_media, cache))
    headers = read_headers(cache)
    assert [h.source for h in headers] == ["aist", "youtube"]
    assert headers[0].clip_id == "gBR_sBM_c01_d04_mBR1_ch03"
    assert headers[1].attributes["file"] == str(bad_media / "youtube" / "踊り ✨ (1).mp4")
    skipped = {
        Path(row["file"]).name: row["reason"]
        for row in map(json.loads, (cache / "skipped_rank0.jsonl").read_text().splitlines())
    }
    reasons = {
        "gBR_sBM_c01_d04_mBR2_ch04.mp4": "cannot be read",
        "my dance.mp4": "not an AIST name",
        "空.mp4": "cannot be read",
        "text.mp4": "cannot be read",
        "latin.mp4": "its caption cannot be read",
        "mute.mp4": "no sound",
        "silent.mp4": "too quiet",
    }
    assert skipped["text.mp4"].startswith("cannot be read: as video (")
    found = {name: reason.split(":")[0] for name, reason in skipped.items()}
    # FFmpeg 9 still finds the first packets of half a file, FFmpeg 8 none.
    half = found.pop("half.mp4")
    assert half in ("cannot be read", "no sound")
    assert found == reasons
    printed = capsys.readouterr().out
    assert "encoded 2 clips, 0 were there already." in printed
    rows = [[request.strip() for request in line.split("|")] for line in printed.splitlines()]
    assert ["", "aist", "file", "cannot be read", "1", ""] in rows
    assert ["", "youtube", "clip", "too quiet", "1", ""] in rows
    assert "youtube: captions of no video: 1 (gone.mp4)" in printed
    unread = [int(row[4]) for row in rows if "youtube" in row and "cannot be read" in row]
    assert sum(unread) == (3 if half == "cannot be read" else 2)
    for reason in skipped.values():
        assert reason in printed
    # What is skipped while it is read is tried again; nothing else is.
    main(encode_arguments(small_parts, bad_media, cache))
    assert "encoded 0 clips, 2 were there already." in capsys.readouterr().out
    assert len((cache / "skipped_rank0.jsonl").read_text().splitlines()) == 8


def test_nothing_but_bad_files(small_parts: Path, bad_media: Path, tmp_path: Path) -> None:
    for name in ("aist/gBR_sBM_c01_d04_mBR1_ch03.mp4", "youtube/踊り ✨ (1).mp4"):
        (bad_media / name).unlink()
    with pytest.raises(ValueError, match="No clip can be cut from the 2 videos of .*/aist"):
        main(encode_arguments(small_parts, bad_media, tmp_path / "cache"))
