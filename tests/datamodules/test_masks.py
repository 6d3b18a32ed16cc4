"""Masks of clips, from joints and from grey videos, where a clip was cut."""

import json
from pathlib import Path

import pytest
import torch

from datamodules import YouTubeDataset
from datamodules.clips import SkippedClip
from datamodules.cutting import ClipDataset
from datamodules.folders import find_videos, other_files
from datamodules.masks import ClipMask, MaskDataset, MaskSettings, clip_mask
from musicinfuser.clip_size import MOCHI
from musicinfuser.errors import UserError
from musicinfuser.media.masks import mask_path, write_mask
from musicinfuser.media.video_writing import write_video
from tests.datamodules.conftest import cut

NUM_FRAMES, HEIGHT, WIDTH = 60, 72, 128
SIZE = {"num_frames": 13, "height": 32, "width": 32}
SOUND = {"audio": torch.full((32_000,), 0.1), "audio_rate_hz": 16_000}


def corners(frame: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in pixels of somebody who walks to the right."""
    left = 30 + frame
    return left, 16.0, left + 20, 60.0


@pytest.fixture
def dataset(tmp_path: Path) -> ClipDataset:
    """One video of 2 s of 30 frames, cut in its middle to a square."""
    frames = torch.zeros(NUM_FRAMES, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    write_video(tmp_path / "dance.mp4", frames, fps=30, **SOUND)
    return cut(YouTubeDataset, tmp_path, **SIZE)


def write_joints(path: Path, *, unit: tuple[float, float] = (1, 1), **changes) -> Path:
    places = []
    for frame in range(NUM_FRAMES):
        left, top, right, bottom = corners(frame)
        places.append([[left / unit[0], top / unit[1]], [right / unit[0], bottom / unit[1]]])
    content = {"joints": [places], "fps": 30.0, "frame_size": [WIDTH, HEIGHT]} | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def expected(dataset: ClipDataset) -> torch.Tensor:
    """By hand, from a mask of pixels at ten times the size: the mean of what a latent one shows."""
    (spec,) = dataset.clips
    frames = torch.zeros(13, 720, 720)
    for i in range(13):
        # The frame that is on screen; the middle 72 of 128 columns are seen.
        shown = int(30 * spec.start_seconds + i + 1e-3)
        left, top, right, bottom = (10 * side for side in corners(shown))
        first, last = round(left - 280), round(right - 280)
        frames[i, round(top) : round(bottom), max(first, 0) : max(last, 0)] = 1
    cells = frames.unflatten(1, (4, 180)).unflatten(3, (4, 180)).mean(dim=(2, 4))
    return torch.stack([cells[0], cells[1:7].mean(dim=0), cells[7:].mean(dim=0)])


def mask_of(dataset: ClipDataset, path: Path) -> torch.Tensor:
    return clip_mask(dataset, dataset.clips[0], path, margin=0.0, geometry=MOCHI)


def test_joints_in_pixels_and_in_shares_become_the_same_box(
    dataset: ClipDataset, tmp_path: Path
) -> None:
    pixels = mask_of(dataset, write_joints(tmp_path / "dance.joints.json"))
    assert pixels.shape == (3, 4, 4)
    torch.testing.assert_close(pixels, expected(dataset), atol=1e-4, rtol=0)
    shares = write_joints(tmp_path / "truth.json", unit=(WIDTH, HEIGHT), frame_size=None)
    torch.testing.assert_close(mask_of(dataset, shares), pixels, atol=1e-5, rtol=0)
    larger = clip_mask(
        dataset, dataset.clips[0], tmp_path / "dance.joints.json", margin=0.2, geometry=MOCHI
    )
    assert (larger >= pixels).all() and larger.sum() > 1.3 * pixels.sum()


def test_frames_without_anybody_have_no_inside(dataset: ClipDataset, tmp_path: Path) -> None:
    seen = [[1] * 38 + [0] * (NUM_FRAMES - 38)]
    nobody = write_joints(tmp_path / "dance.joints.json", seen=seen)
    (spec,) = dataset.clips
    full, part = expected(dataset), mask_of(dataset, nobody)
    assert spec.start_seconds * 30 < 38 < spec.start_seconds * 30 + 12, "both are within the clip"
    assert torch.allclose(part[0], full[0], atol=1e-4)
    assert 0 <= part.sum() < full.sum()


def test_a_grey_video_is_read_as_the_clip_is(dataset: ClipDataset, tmp_path: Path) -> None:
    frames = torch.zeros(NUM_FRAMES, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    for frame in range(NUM_FRAMES):
        left, top, right, bottom = map(round, corners(frame))
        frames[frame, top:bottom, left:right] = 255
    path = tmp_path / "dance.mask.mp4"
    write_video(path, frames, fps=30)
    # The codec and the resize blur edges.
    torch.testing.assert_close(mask_of(dataset, path), expected(dataset), atol=0.08, rtol=0)
    assert find_videos(tmp_path) == [tmp_path / "dance.mp4"]
    assert other_files(tmp_path) == ["videos that are masks of others (<name>.mask.mp4): 1"]
    write_video(path, frames[:, :, :72], fps=30)
    with pytest.raises(UserError, match=r"has 72x72 px, another aspect than its video of 128x72"):
        mask_of(dataset, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": None}, "needs joints of 2 coordinates and the frames per second"),
        ({"joints": [[[0, 0, 0]] * NUM_FRAMES]}, "needs joints of 2 coordinates"),
        ({"joints": [[[0, 0]]] * 5}, "of 5 frames, which end at second 0.17, but the clip goes on"),
        ({"joints": None}, 'cannot be read as {"joints"'),
    ],
)
def test_joints_that_cannot_be_placed(
    dataset: ClipDataset, tmp_path: Path, changes: dict, message: str
) -> None:
    write_joints(tmp_path / "dance.joints.json", **changes)
    masks = MaskDataset([dataset], MaskSettings(), cache_dir=tmp_path / "cache", geometry=MOCHI)
    (skipped,) = [masks[i] for i in range(len(masks))]
    assert isinstance(skipped, SkippedClip)
    assert skipped.reason.startswith("no mask: ") and message in skipped.reason


def test_masks_are_made_once_and_anew_where_something_is_another(
    dataset: ClipDataset, tmp_path: Path
) -> None:
    def masks(**settings) -> MaskDataset:
        made = MaskSettings(**settings)
        return MaskDataset([dataset], made, cache_dir=tmp_path / "cache", geometry=MOCHI)

    assert (len(masks()), masks().num_without) == (0, 1)
    assert "1 clips have no mask: their videos, e.g. " in masks().note()
    path = write_joints(tmp_path / "dance.joints.json")
    (item,) = [masks()[0]]
    assert isinstance(item, ClipMask) and masks().note() == ""
    write_mask(mask_path(tmp_path / "cache", "youtube", item.spec.clip_id), item.mask, item.made_of)
    assert (len(masks()), masks().num_found) == (0, 1)
    assert len(masks(margin=0.2)) == 1
    # One whose file has gone since stays, and is said to be there.
    path.rename(tmp_path / "elsewhere")
    assert (masks().num_without, masks().num_found) == (0, 1)
    (tmp_path / "elsewhere").rename(path)
    path.write_text(path.read_text() + " ")
    assert len(masks()) == 1
    # In a folder of their own they may be called as the video.
    (tmp_path / "truth").mkdir()
    path.rename(tmp_path / "truth" / "dance.json")
    assert (len(masks()), len(masks(folder=str(tmp_path / "truth")))) == (0, 1)
    # Of a file that cannot be read now, the former one's is dropped.
    path.write_text("{")
    assert isinstance(masks()[0], SkippedClip)
    assert not mask_path(tmp_path / "cache", "youtube", item.spec.clip_id).exists()


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="data.masks.folder names /no/such, which is not a folder"):
        MaskSettings(folder="/no/such")


def test_a_margin_below_nothing() -> None:
    with pytest.raises(UserError, match="data.masks.margin is -1; it must be at least 0"):
        MaskSettings(margin=-1)
