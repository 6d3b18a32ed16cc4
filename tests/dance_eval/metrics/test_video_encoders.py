"""VideoMAE and DINOv2 of the real classes, and Fréchet distances of videos and of frames."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from transformers import Dinov2Model, VideoMAEImageProcessor, VideoMAEModel

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.features import PixelStatistics
from dance_eval.metrics.frechet import FrechetDistance
from dance_eval.metrics.image_encoders import (
    ClipEncoder,
    ClipFrameFeatures,
    Dinov2Encoder,
    VideoMaeEncoder,
    VideoMaeFeatures,
)
from tests.dance_eval.metrics.sets import combined, entry
from tests.small_encoders import DINO_SIDE, noise, write_small_dinov2, write_small_videomae


def clip_of(frames, name="a.mp4"):
    return ScoredClip(frames=frames, fps=30.0, waveform=None, rate_hz=1, name=name, seed=0)


@pytest.fixture(scope="module")
def videomae(tmp_path_factory):
    return write_small_videomae(tmp_path_factory.mktemp("videomae"))


def pixels_of(frames):
    """As the processor of MCG-NJU/videomae-base has it, but smaller."""
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": DINO_SIDE},
        crop_size={"height": DINO_SIDE, "width": DINO_SIDE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return processor(list(frames.numpy()), return_tensors="pt").pixel_values


def test_a_clip_is_the_mean_of_videomaes_tokens_of_eight_frames(videomae):
    frames = noise(20, 36, 61)
    found = VideoMaeEncoder(videomae).embed_images(frames)
    places = [round(k * 19 / 7) for k in range(8)]
    model = VideoMAEModel.from_pretrained(videomae).eval()
    with torch.no_grad():
        tokens = model(pixels_of(frames[places])).last_hidden_state[0].numpy()
    assert found.shape == (1, 32)
    np.testing.assert_allclose(found[0].numpy(), tokens.mean(axis=0), rtol=0, atol=0.15)
    assert VideoMaeEncoder(videomae).embed_images(frames[:3]).shape == (1, 32)
    with pytest.raises(ValueError, match="1 frames are no video"):
        VideoMaeEncoder(videomae).embed_images(frames[:1])
    with pytest.raises(ValueError, match="holds a 'videomae' model, not a 'clip' model"):
        ClipEncoder(videomae)


def test_dinov2_is_the_class_token_of_the_middle(tmp_path):
    folder = write_small_dinov2(tmp_path / "dinov2")
    frames = noise(3, 36, 61)
    found = Dinov2Encoder(folder).embed_images(frames)
    model = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(pixels_of(frames)[0]).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.15)
    assert expected.std(dim=0).mean() > 0.3


def slow_frechet(first, second):
    c1, c2 = (np.cov(x, rowvar=False) for x in (first, second))
    gap = first.mean(axis=0) - second.mean(axis=0)
    little = 1e-9 * np.eye(len(c1))
    root = sqrtm((c1 + little) @ (c2 + little)).real
    return gap @ gap + np.trace(c1 + c2 - 2 * root)


def test_the_distance_of_videos_depends_on_their_order(videomae):
    """Clips that fade in, against clips that fade in darker; shuffled they are something else."""
    features = VideoMaeFeatures(VideoMaeEncoder(videomae))
    clips, vectors = [], {"truth": [], "ours": []}
    fade = torch.linspace(0, 1, 16)[:, None, None, None]
    for system, level in (("truth", 1.0), ("ours", 0.9)):
        for seed in range(5):
            base = noise(1, 30, 30, seed=seed).float()
            frames = (base * fade * level).to(torch.uint8)
            clips.append((clip_of(frames, f"{seed}.mp4"), entry(system, seed=seed)))
            vectors[system].append(features.features(frames)[0].double().numpy())
    metric = FrechetDistance(features=features, reference="truth", num_resamples=5)
    values = combined(metric, clips, "ours")
    expected = slow_frechet(np.stack(vectors["ours"]), np.stack(vectors["truth"]))
    assert values["distance"].mean == pytest.approx(expected, rel=2e-2)
    assert values["shuffled"].mean > 2 * values["distance"].mean
    assert values["reference_to_itself"].mean > 0


def test_frames_may_count_one_by_one(clip_folder):
    features = ClipFrameFeatures(ClipEncoder(clip_folder))
    clips, rows = [], {"truth": [], "ours": []}
    for system in rows:
        for seed in range(3):
            frames = noise(7, 34, 34, seed=seed + 10 * (system == "ours"))
            clips.append((clip_of(frames, f"{system}{seed}.mp4"), entry(system, seed=seed)))
            rows[system].append(features.features(frames)[[0, 2, 4, 6]].double().numpy())
    metric = FrechetDistance(features=features, reference="truth", num_frames=4, num_resamples=5)
    values = combined(metric, clips, "ours")
    stacked = {system: np.concatenate(parts) for system, parts in rows.items()}
    expected = slow_frechet(stacked["ours"], stacked["truth"])
    assert values["distance"].mean == pytest.approx(expected, rel=2e-2)
    assert values["distance"].num_values == 3 and values["shuffled"].mean is None
    with pytest.raises(ValueError, match="has features of 1 frames; num_frames is 4"):
        FrechetDistance(features=PixelStatistics(), num_frames=4).describe(clips[0][0])
    with pytest.raises(ValueError, match="whole clips; leave out num_frames"):
        FrechetDistance(features=VideoMaeFeatures.__new__(VideoMaeFeatures), num_frames=4)
