"""Each video gets the size that cuts least of what a player shows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import AISTDataset, EncodingDataModule, YouTubeDataset
from datamodules.clips import ClipSpec, RawClip
from musicinfuser.media.video_writing import write_video
from tests.datamodules.conftest import cut
from tests.media.conftest import rotate_mp4, sine, write_media

WIDE, TALL, SQUARE = (32, 64), (64, 32), (48, 48)
BUCKETS = [WIDE, TALL, SQUARE]
SIZE = {"num_frames": 7, "height": 32, "width": 64}
TIMES = [k / 30 for k in range(36)]
RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)


def dancer(index: int, width: int, height: int) -> np.ndarray:
    """Head above, feet below, on the long side of the stored picture."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = GREEN
    if height >= width:
        image[: height // 8], image[-height // 8 :] = RED, BLUE
    else:  # lies on its side, head to the left
        image[:, : width // 8], image[:, -width // 8 :] = RED, BLUE
    return image


def film(path: Path, width: int, height: int, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"audio": sine(440, 1.2), "draw": dancer, "color": (1, 1)} | options
    return write_media(path, times=TIMES, width=width, height=height, **options)


def sizes(clips: list[ClipSpec]) -> dict[str, tuple[int, int]]:
    return {Path(spec.attributes["file"]).stem: (spec.height, spec.width) for spec in clips}


def assert_head_and_feet(clip: RawClip) -> None:
    top, bottom = (clip.frames[:, row].float().mean(dim=(0, 1)) for row in (1, -2))
    assert (top - torch.tensor(RED)).abs().max() < 30
    assert (bottom - torch.tensor(BLUE)).abs().max() < 30


def test_each_video_takes_its_nearest_size(tmp_path: Path) -> None:
    film(tmp_path / "landscape.mp4", 128, 72)
    film(tmp_path / "portrait.mp4", 72, 128)
    film(tmp_path / "square.mp4", 64, 64)
    film(tmp_path / "classic.mp4", 96, 72)
    rotate_mp4(film(tmp_path / "phone.mp4", 128, 72), 90, 128, 72)
    film(tmp_path / "anamorphic.mp4", 64, 64, pixel_aspect=2)
    dataset = cut(YouTubeDataset, tmp_path, **SIZE, buckets=BUCKETS)
    assert sizes(dataset.clips) == {
        "landscape": WIDE,
        "portrait": TALL,
        "square": SQUARE,
        "classic": SQUARE,
        "phone": TALL,
        "anamorphic": WIDE,
    }
    clips = {Path(c.spec.attributes["file"]).stem: c for c in dataset}
    for name, clip in clips.items():
        height, width = sizes(dataset.clips)[name]
        assert clip.frames.shape == (7, height, width, 3)
    for name in ("portrait", "phone", "square"):
        assert_head_and_feet(clips[name])
    # With one size for all, portrait video loses both.
    alone = {Path(c.spec.attributes["file"]).stem: c for c in cut(YouTubeDataset, tmp_path, **SIZE)}
    assert {clip.frames.shape for clip in alone.values()} == {(7, 32, 64, 3)}
    with pytest.raises(AssertionError):
        assert_head_and_feet(alone["portrait"])


def test_too_small_for_its_bucket(tmp_path: Path) -> None:
    film(tmp_path / "enough.mp4", 72, 128)
    film(tmp_path / "small.mp4", 30, 60)
    film(tmp_path / "small square.mp4", 40, 40)
    dataset = cut(YouTubeDataset, tmp_path, **SIZE, buckets=BUCKETS)
    assert sizes(dataset.clips) == {"enough": TALL}
    reasons = {skip.path.stem: skip.reason for skip in dataset.skipped}
    assert reasons["small"].startswith(
        "too small: the centre crop of 30x60 px has 30x60 px, less than 32x64"
    )
    assert "less than 48x48" in reasons["small square"]
    kept = cut(YouTubeDataset, tmp_path, **SIZE, buckets=BUCKETS, allow_upscaling=True)
    assert sizes(kept.clips) == {"enough": TALL, "small": TALL, "small square": SQUARE}


def test_the_authors_box_is_for_wide_pictures(tmp_path: Path) -> None:
    names = ["gBR_sBM_c01_d04_mBR1_ch03", "gBR_sBM_c01_d05_mBR2_ch04"]
    film(tmp_path / f"{names[0]}.mp4", 144, 72)
    film(tmp_path / f"{names[1]}.mp4", 72, 144)
    (tmp_path / f"{names[1]}.mp4").rename(tmp_path / f"{names[1]}.mov")
    dataset = cut(AISTDataset, tmp_path, **SIZE, buckets=BUCKETS)
    assert sizes(dataset.clips) == {names[0]: WIDE, names[1]: TALL}
    assert [spec.crop for spec in dataset.clips] == ["aist", "centre"]
    clips = list(dataset)
    assert_head_and_feet(clips[1])
    before = cut(AISTDataset, tmp_path, **SIZE, files=[f"{names[0]}.mp4"])
    assert torch.equal(clips[0].frames, before[0].frames)
    # One size alone keeps the authors' box, whatever its shape.
    assert cut(AISTDataset, tmp_path, num_frames=7, height=48, width=32).clips[0].crop == "aist"


def test_clips_start_where_they_did(tmp_path: Path) -> None:
    """Sizes change what is cut away, not which seconds are taken."""
    write_video(
        tmp_path / "long.mp4",
        torch.zeros(900, 64, 64, 3, dtype=torch.uint8),
        fps=30.0,
        audio=torch.full((16_000,), 0.1),
        audio_rate_hz=16_000,
    )
    one, several = (
        cut(YouTubeDataset, tmp_path, **SIZE, buckets=buckets).clips for buckets in (None, BUCKETS)
    )
    assert [(s.clip_id, s.start_seconds) for s in one] == [
        (s.clip_id, s.start_seconds) for s in several
    ]
    assert len(one) == 3


def test_settings_of_the_data_module(tmp_path: Path) -> None:
    film(tmp_path / "portrait.mp4", 72, 128)

    def data(**changes) -> EncodingDataModule:
        return EncodingDataModule(
            str(tmp_path / "cache"),
            [lambda settings: YouTubeDataset(settings, tmp_path)],
            **(SIZE | changes),
        )

    assert data().shapes == ((7, *WIDE),)
    several = data(buckets=BUCKETS)
    assert several.shapes == tuple((7, *size) for size in BUCKETS)
    assert sizes(several.sources[0](several.settings).clips) == {"portrait": TALL}
    with pytest.raises(ValueError, match="data.buckets, 64x40: width is 40 px"):
        data(buckets=[WIDE, (64, 40)])


def test_each_clip_takes_the_longest_length_that_its_video_fills(tmp_path: Path) -> None:
    """Of its size: 7, 19 and 31 frames last 0.3, 0.7 and 1.1 s, and margins take a tenth."""
    for name, seconds in {"brief": 0.5, "short": 1.0, "usual": 1.25, "long": 3.0}.items():
        times = [k / 30 for k in range(round(30 * seconds))]
        write_media(
            tmp_path / f"{name}.mp4", times=times, width=128, height=72, audio=sine(440, seconds)
        )
    film(tmp_path / "portrait.mp4", 72, 128)
    buckets = [WIDE, (31, *WIDE), (19, *WIDE), (37, *TALL), TALL]
    dataset = cut(YouTubeDataset, tmp_path, **SIZE, buckets=buckets)
    shapes = {Path(spec.attributes["file"]).stem: spec.shape for spec in dataset.clips}
    assert shapes == {
        "brief": (7, *WIDE),
        "short": (19, *WIDE),
        "usual": (31, *WIDE),
        "long": (31, *WIDE),
        "portrait": (7, *TALL),
    }
    for clip in dataset:
        frames, height, width = shapes[Path(clip.spec.attributes["file"]).stem]
        assert clip.frames.shape == (frames, height, width, 3)
        first, number = clip.own_sound
        seconds = {7: 0.3, 19: 0.7, 31: 1.1}[frames]
        assert (first, number, len(clip.waveform)) == (0, 16_000 * seconds, 16_000 * seconds)
    alone = cut(YouTubeDataset, tmp_path, **SIZE, buckets=[(31, *WIDE), (37, *TALL)])
    assert {spec.shape for spec in alone.clips} == {(31, *WIDE)}
    reasons = {skip.path.stem: skip.reason for skip in alone.skipped}
    assert reasons["portrait"].startswith("too short: 1.20 s, a clip of 1.3 s with margins needs")
    assert reasons.keys() == {"brief", "short", "portrait"}
