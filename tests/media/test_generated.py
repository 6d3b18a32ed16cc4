import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from musicinfuser.media.errors import MediaError
from musicinfuser.media.generated import ManifestEntry, write_generated, write_manifest
from musicinfuser.version import VERSION

FRAMES = torch.randint(0, 256, (7, 32, 48, 3), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)
TONE = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(round(44_100 * 7 / 30)) / 44_100)


def entry(file: str, **changes) -> ManifestEntry:
    options = {
        "system": "ours",
        "track": "music/mBR0.wav",
        "track_offset_seconds": 1.5,
        "prompt": '踊る "quick" dancer',
        "seed": 3,
        "num_frames": 7,
        "fps": 30.0,
        "height": 32,
        "width": 48,
        "num_steps": 2,
        "guidance_scale": 6.0,
        "padded_seconds": 0.0,
    } | changes
    return ManifestEntry(file=file, **options)


def write(folder: Path, made: ManifestEntry, frames: torch.Tensor = FRAMES) -> Path:
    return write_generated(folder, made, frames=frames, waveform=TONE, audio_rate_hz=44_100)


def test_video_and_description(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "folder", entry("a clip.mp4"))
    assert sorted(p.name for p in path.parent.iterdir()) == ["a clip.json", "a clip.mp4"]
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert description["prompt"] == '踊る "quick" dancer'
    assert description["track_offset_seconds"] == 1.5
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        assert json.loads(container.metadata["comment"]) == {
            "prompt": '踊る "quick" dancer',
            "seed": 3,
            "track": "music/mBR0.wav",
            "track_offset_seconds": 1.5,
            "version": VERSION,
        }
        assert container.metadata["description"].startswith('踊る "quick" dancer (seed 3, ')
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(shown) == 7
    error = np.abs(np.stack(shown).mean(axis=(1, 2, 3)) - FRAMES.numpy().mean(axis=(1, 2, 3)))
    assert error.max() < 4


def test_what_was_heard_instead_is_kept_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, entry("clip.mp4", heard="music/mHO5.wav"))
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["comment"])["heard"] == "music/mHO5.wav"
    assert json.loads(path.with_suffix(".json").read_text())["heard"] == "music/mHO5.wav"


def test_manifest_lists_whole_clips_sorted(tmp_path: Path) -> None:
    for name, seed in (("b.mp4", 2), ("a.mp4", 1), ("c.mp4", 3)):
        write(tmp_path, entry(name, seed=seed))
    (tmp_path / "b.mp4").unlink()
    (tmp_path / "metrics.json").write_text('{"beat_alignment": 0.3}')
    (tmp_path / ".0123abcd.json").write_text('{"file": "c.m')
    manifest = write_manifest(tmp_path)
    assert manifest == tmp_path / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [(row["file"], row["seed"]) for row in rows] == [("a.mp4", 1), ("c.mp4", 3)]
    assert rows[0] == json.loads((tmp_path / "a.json").read_text())
    first = manifest.read_bytes()
    assert write_manifest(tmp_path).read_bytes() == first
    # Files of others are none of ours; one that cannot be read stops nothing.
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text('{"sha256": 3}')
    assert write_manifest(tmp_path).read_bytes() == first
    (tmp_path / "half.json").write_text('{"sha256": ')
    with pytest.warns(
        UserWarning, match=r"left out of .*manifest\.jsonl: .*half\.json, line 1: not"
    ):
        assert write_manifest(tmp_path).read_bytes() == first


def test_a_failed_video_leaves_no_description(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write(tmp_path, entry("odd.mp4"), frames=FRAMES[:, :31])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises((MediaError, OSError)):
        write(tmp_path / "file", entry("clip.mp4"))


def test_the_same_clip_twice_is_the_same_file(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", entry("a.mp4")), write(tmp_path / "2", entry("a.mp4"))
    assert one.read_bytes() == two.read_bytes()
