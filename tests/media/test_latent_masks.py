from pathlib import Path

import numpy as np
import pytest
import torch

from musicinfuser.media.latents import CacheError
from musicinfuser.media.masks import (
    box_coverage,
    mask_made_of,
    mask_path,
    over_latent_frames,
    over_latent_pixels,
    people_boxes,
    read_mask,
    write_mask,
)


def test_coverage_is_that_of_a_fine_raster() -> None:
    boxes = torch.tensor([[[0.25, 1.5, 2.75, 3.0]], [[-3.0, 2.5, 0.5, 9.0]]])
    scale = 40
    y, x = np.mgrid[0 : 4 * scale, 0 : 5 * scale] / scale + 0.5 / scale
    shares = []
    for left, top, right, bottom in boxes[:, 0].tolist():
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        shares.append(inside.reshape(4, scale, 5, scale).mean(axis=(1, 3)))
    expected = torch.from_numpy(np.maximum(*shares)).float()
    torch.testing.assert_close(box_coverage(boxes, 4, 5)[0], expected, atol=0.002, rtol=0)
    assert box_coverage(boxes[:0], 4, 5).tolist() == torch.zeros(1, 4, 5).tolist()


def test_a_box_is_around_what_is_seen_of_each_person() -> None:
    nan = torch.nan
    places = torch.tensor(
        [
            [[[1.0, 2.0], [5.0, 4.0], [nan, nan]], [[nan, nan]] * 3],
            [[[0.0, 0.0], [0.0, 10.0], [1.0, 1.0]], [[3.0, 3.0]] * 3],
        ]
    )
    boxes = people_boxes(places, margin=0.1)
    assert boxes[0, 0].tolist() == pytest.approx([0.6, 1.6, 5.4, 4.4])
    assert boxes[1].tolist() == [[-1.0, -1.0, 2.0, 11.0], [3.0, 3.0, 3.0, 3.0]]
    # Of who is not seen, and of a point, nothing is inside.
    assert box_coverage(boxes[:, 1:], 6, 6).sum() == 0
    assert box_coverage(boxes, 6, 6)[0].sum() > 0


def test_a_latent_pixel_is_the_mean_of_what_it_stands_for() -> None:
    frames = torch.rand(13, 16, 24, generator=torch.manual_seed(0))
    latent = over_latent_frames(over_latent_pixels(frames, 8), 6)
    assert latent.shape == (3, 2, 3)
    for k, part in enumerate((frames[:1], frames[1:7], frames[7:])):
        for row in range(2):
            for column in range(3):
                mean = part[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].mean()
                assert latent[k, row, column].item() == pytest.approx(mean.item(), rel=1e-5)
    assert torch.equal(over_latent_frames(frames[:1], 6), frames[:1])


def test_a_mask_is_kept_with_what_it_was_made_of(tmp_path: Path) -> None:
    path = mask_path(tmp_path, "aist", "a clip")
    assert path == tmp_path / "masks" / "aist" / "a clip.safetensors"
    mask = torch.rand(2, 4, 4)
    assert mask_made_of(path) is None
    write_mask(path, mask, {"margin": "0.1"})
    torch.testing.assert_close(read_mask(path), mask, atol=1e-3, rtol=0)
    assert read_mask(path).dtype == torch.float32
    assert mask_made_of(path) == {"margin": "0.1"}
    path.write_bytes(b"x")
    with pytest.raises(CacheError, match="the mask .* cannot be read .*; delete it and encode"):
        read_mask(path)
    assert mask_made_of(path) is None
