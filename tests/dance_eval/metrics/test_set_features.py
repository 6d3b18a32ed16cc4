import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.features import PixelStatistics, clip_features
from dance_eval.metrics.frechet import FrechetDistance, bootstrap_frechet, frechet_distance
from dance_eval.metrics.seed_diversity import SeedDiversity, mean_pairwise_distance
from musicinfuser.keyed_random import generator
from tests.dance_eval.metrics.sets import combined, entry


def sample(n, d, name, *, shift=0.0):
    draws = torch.randn(n, d, generator=generator(0, 0, name), dtype=torch.float64)
    return draws @ torch.diag(torch.linspace(0.5, 2, d, dtype=torch.float64)) + shift


def level_clip(level, *, num_frames=5, change=0, name="clip"):
    levels = torch.tensor([level + change * (k % 2) for k in range(num_frames)], dtype=torch.uint8)
    frames = levels[:, None, None, None].expand(-1, 8, 8, 3).clone()
    return ScoredClip(frames, 30.0, None, 16000, name=name, seed=0)


def test_pixel_statistics_against_a_plain_loop():
    frames = torch.randint(
        0, 256, (3, 4, 6, 3), generator=generator(0, 0, "frames"), dtype=torch.uint8
    )
    found = PixelStatistics(grid=2, motion_weight=3.0).features(frames)
    levels = (frames.double() / 255).tolist()
    colour, motion = [], []
    for rows in ((0, 1), (2, 3)):
        for columns in ((0, 1, 2), (3, 4, 5)):
            points = [(r, c) for r in rows for c in columns]
            colour += [
                sum(levels[t][r][c][k] for t in range(3) for r, c in points) / 18 for k in range(3)
            ]
            grey = [
                [sum(w * x for w, x in zip((0.299, 0.587, 0.114), levels[t][r][c], strict=True))
                 for r, c in points]
                for t in range(3)
            ]  # fmt: skip
            steps = [abs(b - a) for t in (0, 1) for a, b in zip(grey[t], grey[t + 1], strict=True)]
            motion.append(3.0 * sum(steps) / len(steps))
    assert found.shape == (1, 16)
    assert found[0].tolist() == pytest.approx(colour + motion, abs=1e-6)


def test_features_of_a_clip_are_computed_once_per_name():
    class Counted(PixelStatistics):
        calls = 0

        def features(self, frames):
            Counted.calls += 1
            return frames.float().mean(dim=(1, 2))

    clip = level_clip(100, change=20)
    first = clip_features(clip, Counted())
    assert first.tolist() == pytest.approx([108] * 3) and Counted.calls == 1
    clip_features(clip, Counted())
    assert Counted.calls == 1
    clip_features(clip, Counted(grid=2))
    assert Counted.calls == 2
    with pytest.raises(ValueError, match="no frames"):
        clip_features(level_clip(0, num_frames=0), Counted())
    with pytest.raises(ValueError, match="grid is 0"):
        PixelStatistics(grid=0)


def test_diversity_against_a_plain_loop():
    features = sample(5, 7, "diversity").tolist()
    distances = [math.dist(features[i], features[j]) for i in range(5) for j in range(5) if i < j]
    found = mean_pairwise_distance(torch.tensor(features))
    assert found == pytest.approx(sum(distances) / 10)
    with pytest.raises(ValueError, match="no pair"):
        mean_pairwise_distance(torch.zeros(1, 3))


def test_diversity_is_over_seeds_of_one_prompt_and_music():
    clips = [
        (level_clip(100), entry(seed=0)),
        (level_clip(151), entry(seed=1)),
        (level_clip(255), entry(seed=1, folder="another training")),
        (level_clip(0), entry(seed=2, prompt="another")),
        (level_clip(0), entry(seed=3, track="other.wav")),
        (level_clip(0), entry(seed=3, heard="other.wav")),
        (level_clip(0), entry(seed=3, track_offset_seconds=2.0)),
        (level_clip(0), entry("another", seed=5)),
    ]
    values = combined(SeedDiversity(features=PixelStatistics()), clips)
    assert values["distance"].mean == pytest.approx(0.2 * math.sqrt(48))
    assert values["distance"].num_values == 1
    assert (values["num_alone"].mean, values["num_alone"].num_values) == (4, 7)
    # From each of four black clips the others are two grey and three black; from the grey, four.
    far, near = (level / 255 * math.sqrt(48) for level in (151, 100))
    black = (far + near) / 5
    assert values["to_other"].mean == pytest.approx((4 * black + (far + near) / 2) / 5)
    assert combined(SeedDiversity(features=PixelStatistics()), clips[:2])["to_other"].mean is None


@pytest.mark.parametrize(("n1", "n2", "d"), [(40, 30, 5), (6, 9, 20), (8, 40, 12)])
def test_frechet_against_scipys_matrix_root(n1, n2, d):
    first, second = sample(n1, d, "a"), sample(n2, d, "b", shift=0.3)
    c1, c2 = (np.cov(x.numpy(), rowvar=False) for x in (first, second))
    gap = (first.mean(dim=0) - second.mean(dim=0)).numpy()
    # Singular covariances have no exact root in scipy; a little of unity gives them one.
    little = 1e-10 * np.eye(d)
    root = sqrtm((c1 + little) @ (c2 + little)).real
    expected = gap @ gap + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-3)


def test_frechet_of_equal_samples_and_of_a_shift():
    first = sample(50, 4, "a")
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, first + 2) == pytest.approx(16)
    with pytest.raises(ValueError, match="no Frechet distance"):
        frechet_distance(first[:1], first)


def test_the_interval_lies_around_the_distance():
    first, second = sample(60, 4, "a"), sample(50, 4, "b", shift=1.0)
    found = bootstrap_frechet(first, second, seed=0, name="x")
    assert found.mean == pytest.approx(frechet_distance(first, second))
    assert 0 <= found.low < found.mean < found.high and found.num_values == 60
    again = bootstrap_frechet(first, second, seed=0, name="x", confidence=0.5)
    assert found.low < again.low < again.high < found.high
    assert bootstrap_frechet(first, second, seed=1, name="x").low != found.low
    assert bootstrap_frechet(first[:2], second, seed=0, name="x").low is None
    assert bootstrap_frechet(first[:1], second, seed=0, name="x").mean is None


def test_systems_are_compared_with_the_reference():
    clips = [(level_clip(90 + 10 * k), entry("truth", seed=k)) for k in range(4)]
    clips += [(level_clip(141 + 10 * k), entry("s", seed=k)) for k in range(4)]
    clips += [(level_clip(0), entry("another"))]
    metric = FrechetDistance(features=PixelStatistics(), reference="truth", num_resamples=20)
    values = combined(metric, clips)
    assert values["distance"].mean == pytest.approx(48 * 0.2**2, rel=1e-3)
    assert (values["distance"].num_values, values["num_reference"].mean) == (4, 4)
    # Parts of both sets mixed are nearer to each other than the sets, and not the same.
    assert 0 < values["mixed"].low < values["mixed"].mean < values["distance"].mean
    assert values["mixed"].num_values == 4
    fewer = combined(metric, clips[1:])
    assert (fewer["distance"].num_values, fewer["num_reference"].mean) == (4, 3)
    assert combined(metric, clips, "truth")["distance"].mean is None
    assert combined(metric, clips, "another")["distance"].mean is None
    with pytest.raises(ValueError, match="'truth', but the folders hold 's'"):
        metric.require(["s"])
    metric.require(["s", "truth"])
    with pytest.raises(ValueError, match="num_resamples is 0"):
        FrechetDistance(features=PixelStatistics(), num_resamples=0)


def test_a_set_of_one_clip_has_no_distance_and_other_systems_do_not_count():
    clips = [(level_clip(100 + 17 * k), entry(seed=k)) for k in range(4)]
    metric = SeedDiversity(features=PixelStatistics())
    alone = combined(metric, clips[:1] + [(clips[1][0], entry("another", seed=1))])
    assert (alone["distance"].mean, alone["num_alone"].mean) == (None, 1)
    whole = combined(metric, clips)["distance"].mean
    assert combined(metric, list(reversed(clips)))["distance"].mean == pytest.approx(whole)
