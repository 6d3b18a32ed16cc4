"""BRISQUE by its package, which is optional."""

import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from dance_eval.metrics.brisque import Brisque
from dance_eval.metrics.clip import ScoredClip


def clip_of(frames):
    return ScoredClip(frames=frames, fps=30.0, waveform=None, rate_hz=1, name="a.mp4", seed=0)


def scene(num_frames=9):
    """Patches with edges of all sizes, under a slow light: what natural pictures are made of."""
    stream = np.random.default_rng(0)
    picture = np.full((120, 160, 3), 128.0)
    for size in (60, 40, 25, 12, 6, 6, 3, 3):
        for _ in range(12):
            y, x = stream.integers(0, 120), stream.integers(0, 160)
            picture[y : y + size, x : x + size] = stream.integers(20, 235, 3)
    picture = gaussian_filter(picture, (0.6, 0.6, 0))
    return torch.tensor(np.stack([picture * (1 - 0.01 * t) for t in range(num_frames)])).to(
        torch.uint8
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brisque", None)
    with pytest.raises(ValueError, match=r"pip install 'brisque\[opencv-python-headless\]==0.2.0'"):
        Brisque()


def test_the_score_is_the_packages_mean_over_frames_and_noise_is_worse():
    package = pytest.importorskip("brisque", reason="optional: pip install brisque==0.2.0")
    frames = scene()
    values = Brisque(num_frames=3).score_clip(clip_of(frames))
    scorer = package.BRISQUE(url=False)
    low, high = (np.array(scorer.scale_params[k], float).ravel() for k in ("min_", "max_"))

    # The package's own arithmetic, for numpy from 2.4 on.
    def scaled(features):
        numbers = np.array([np.ravel(number)[0] for number in features], float)
        return 2 * (numbers - low) / (high - low) - 1

    scorer.scale_features = scaled
    expected = np.mean([scorer.score(frames[t].numpy()) for t in (0, 4, 8)])
    assert values["score"] == pytest.approx(float(expected))
    assert values["scrambled"] > values["score"] + 10
    with pytest.raises(ValueError, match="one colour"):
        Brisque().score_clip(clip_of(torch.zeros(2, 50, 50, 3, dtype=torch.uint8)))
