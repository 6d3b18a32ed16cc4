import numpy as np
import pytest
import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.consistency import (
    BackgroundConsistency,
    SubjectConsistency,
    frame_consistency,
)
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.image_encoders import ClipEncoder, DinoEncoder
from tests.small_encoders import noise


def slow_score(features):
    """VBench's loop: frame by frame, both cosines cut at zero, then their mean."""
    total, vectors = 0.0, [np.asarray(row, dtype=np.float64) for row in features]
    for i in range(1, len(vectors)):
        pair = []
        for other in (vectors[i - 1], vectors[0]):
            lengths = np.sqrt(np.sum(other**2)) * np.sqrt(np.sum(vectors[i] ** 2))
            pair.append(max(0.0, float(np.sum(other * vectors[i]) / lengths)))
        total += sum(pair) / 2
    return total / (len(vectors) - 1)


@pytest.fixture
def encoders(clip_folder, dino_folder):
    return DinoEncoder(dino_folder), ClipEncoder(clip_folder)


def clip_of(frames):
    return ScoredClip(frames=frames, fps=30.0, waveform=None, rate_hz=1, name="a.mp4", seed=0)


def test_cosines_to_the_first_and_to_the_frame_before():
    right, up, left = [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]
    diagonal = [1.0, 1.0]
    first, previous = frame_consistency(torch.tensor([right, diagonal, up, left, left]))
    half = 0.5**0.5
    assert first.tolist() == pytest.approx([half, 0, 0, 0])
    assert previous.tolist() == pytest.approx([half, half, 0, 1])
    features = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    both = torch.stack(frame_consistency(features))
    assert (both == 0).any() and both.mean() == pytest.approx(slow_score(features), abs=1e-12)
    assert both.max() <= 1


@pytest.mark.parametrize("kind", ["subject", "background"])
def test_scores_are_those_of_a_slow_loop_over_the_right_features(encoders, kind):
    dino, clip = encoders
    frames = torch.cat([noise(1, 36, 61, seed=1), noise(3, 36, 61, seed=2) // 3])
    if kind == "subject":
        metric, features = SubjectConsistency(encoder=dino), dino.embed_images(frames)
    else:
        metric = BackgroundConsistency(encoder=clip)
        features = clip.embed_images(frames, antialias=False)
    values = metric.score_clip(clip_of(frames))
    assert values["score"] == pytest.approx(slow_score(features), abs=1e-5)
    assert values["score"] == pytest.approx((values["to_first"] + values["to_previous"]) / 2)
    assert abs(values["to_first"] - values["to_previous"]) > 1e-3
    order = shuffled_order(clip_of(frames))
    assert order.tolist() != [0, 1, 2, 3]
    assert values["shuffled"] == pytest.approx(slow_score(features[order]), abs=1e-5)
    assert values["shuffled"] != pytest.approx(values["score"], abs=1e-4)
    assert metric.name == f"{kind}_consistency"
    assert metric.fingerprints() == {"weights": metric.encoder.fingerprint()}


def test_a_still_picture_is_consistent(encoders):
    still = noise(1, 36, 61).expand(4, -1, -1, -1)
    for metric in (
        SubjectConsistency(encoder=encoders[0]),
        BackgroundConsistency(encoder=encoders[1]),
    ):
        assert metric.score_clip(clip_of(still))["score"] == pytest.approx(1, abs=1e-6)
        with pytest.raises(ValueError, match="1 frames have nothing to be consistent with"):
            metric.score_clip(clip_of(still[:1]))
