import numpy as np
import pytest
import torch
from PIL import Image

from dance_eval.metrics.frame_pixels import clip_pixels, dino_pixels, musiq_pixels, musiq_size
from tests import slow_resize
from tests.small_encoders import noise


@pytest.mark.parametrize(("height", "width"), [(40, 71), (71, 40), (33, 33), (16, 20)])
def test_clip_pixels_as_vbench_are_those_of_a_slow_resize(height, width):
    frames = noise(2, height, width)
    found = clip_pixels(frames, size=32, antialias=False)
    assert found.shape == (2, 3, 32, 32) and found.dtype == torch.float32
    for frame, pixels in zip(frames, found, strict=True):
        np.testing.assert_allclose(pixels, slow_resize.vbench_clip(frame.numpy(), 32), atol=2e-4)


def test_clip_pixels_with_antialiasing_are_those_of_clips_own_code():
    frames = noise(2, 61, 108)
    found = clip_pixels(frames, size=32, antialias=True)
    for frame, pixels in zip(frames, found, strict=True):
        picture = Image.fromarray(frame.numpy()).resize((56, 32), Image.Resampling.BICUBIC)
        expected = slow_resize.centre_of(np.array(picture), 32)
        mean, std = (np.array(values)[:, None, None] for values in slow_resize.CLIP)
        levels = (pixels.double().numpy() * std + mean) * 255
        # Both round after each of two passes, now and then to another level.
        apart = np.abs(levels - expected.transpose(2, 0, 1))
        assert apart.max() < 2.01 and apart.mean() < 0.25
        assert np.abs(levels - levels.round()).max() < 1e-3
    plain = clip_pixels(frames, size=32, antialias=False)
    assert (plain - found).abs().mean() > 0.3


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(40, 71, (24, 42)), (71, 40, (42, 24)), (20, 20, (24, 24))]
)
def test_dino_pixels_keep_the_aspect(height, width, shape):
    frames = noise(2, height, width)
    found = dino_pixels(frames, size=24)
    assert found.shape == (2, 3, *shape)
    for frame, pixels in zip(frames, found, strict=True):
        np.testing.assert_allclose(pixels, slow_resize.vbench_dino(frame.numpy(), 24), atol=1e-4)


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [
        ((480, 848), "longer", (289, 512)),
        ((848, 480), "longer", (512, 289)),
        ((480, 848), "shorter", (480, 848)),
        ((720, 1280), "longer", (288, 512)),
        ((720, 1280), "shorter", (512, 910)),
        ((1080, 1920), "longer", (288, 512)),
        ((512, 512), "longer", (512, 512)),
        ((512, 900), "shorter", (512, 900)),
        ((64, 64), "longer", (64, 64)),
        # 512 / 561 * 561 is a hair below 512, and VBench rounds down.
        ((300, 561), "longer", (273, 511)),
    ],
)
def test_sizes_for_musiq(size, mode, expected):
    assert musiq_size(*size, mode=mode) == expected


def test_musiq_pixels_are_those_of_a_slow_resize():
    frames = noise(1, 60, 530)
    found = musiq_pixels(frames, mode="longer")
    assert found.shape == (1, 3, 57, 512)
    slow = slow_resize.resize_picture(frames[0].numpy(), 57, 512, slow_resize.linear_kernel)
    np.testing.assert_allclose(found[0].permute(1, 2, 0), slow / 255, atol=1e-5)
    same = musiq_pixels(frames, mode="shorter")
    assert torch.equal(same, frames.permute(0, 3, 1, 2).float() / 255)


def test_other_frames_and_modes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8, 8\) and type torch.uint8 are not"):
        clip_pixels(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), size=8, antialias=True)
    with pytest.raises(ValueError, match="type torch.float32 are not uint8"):
        dino_pixels(torch.zeros(2, 8, 8, 3), size=8)
    with pytest.raises(ValueError, match="without frames"):
        musiq_pixels(noise(0, 8, 8), mode="longer")
    with pytest.raises(ValueError, match="must be 'longer' or 'shorter', not 'wider'"):
        musiq_size(1, 1, mode="wider")
