"""Fidelity to the first picture and drift of colours, against numpy and PIL."""

import numpy as np
import pytest
import torch
from PIL import Image

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import list_clips
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.first_picture import (
    ColourDrift,
    FirstPictureFidelity,
    lab_means,
    read_picture,
)
from dance_eval.metrics.image_encoders import DinoEncoder
from musicinfuser.media.video import read_clip
from musicinfuser.media.video_writing import write_video
from tests.dance_eval.metrics.sets import entry
from tests.small_encoders import noise


def clip_of(frames, *, image=None, path=None, fps=2.0):
    return ScoredClip(
        frames=frames, fps=fps, waveform=None, rate_hz=1, name="a.mp4", seed=0, image=image,
        path=path,
    )  # fmt: skip


def picture(path, seed, size=(40, 30)):
    Image.fromarray(noise(1, size[1], size[0], seed=seed)[0].numpy()).save(path)
    return path


def test_the_middle_of_a_picture_is_read(tmp_path):
    path = picture(tmp_path / "wide.png", 1, size=(60, 30))
    found = read_picture(path, height=30, width=40)
    assert torch.equal(found, torch.from_numpy(np.array(Image.open(path)))[:, 10:50])
    half = read_picture(path, height=15, width=20)
    expected = Image.open(path).crop((10, 0, 50, 30)).resize((20, 15), Image.Resampling.BICUBIC)
    gaps = np.abs(half.numpy().astype(int) - np.array(expected).astype(int))
    # At the sides the filter may look beyond the box.
    assert gaps[:, 2:-2].max() <= 1 and gaps.mean() < 2
    (tmp_path / "text.png").write_text("x")
    for name in ("text.png", "none.png"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as a picture"):
            read_picture(tmp_path / name, height=3, width=4)


def test_fidelity_is_the_cosine_with_the_own_picture_beside_a_strangers(tmp_path, dino_folder):
    for name, seed in (("a", 1), ("b", 2), ("again", 1)):
        picture(tmp_path / f"{name}.png", seed)
    encoder = DinoEncoder(dino_folder)
    metric = FirstPictureFidelity(encoder=encoder)
    clips = [
        entry(folder=tmp_path, file=f"{name}.mp4", image=f"{name}.png")
        for name in ("a", "again", "b")
    ]
    metric.prepare(clips, seed=0)
    own = read_picture(tmp_path / "a.png", height=30, width=40)
    frames = torch.stack([own, *noise(5, 30, 40, seed=7)])
    clip = clip_of(frames, image=tmp_path / "a.png", path=clips[0].path)
    values = metric.score_clip(clip)
    vectors = encoder.embed_images(
        torch.cat([frames, read_picture(tmp_path / "b.png", height=30, width=40)[None]])
    ).double()
    vectors = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    cosines = [float(np.dot(vectors[t], vectors[0])) for t in range(6)]
    assert values["score"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert values["last_second"] == pytest.approx(np.mean(cosines[-2:]), abs=1e-5)
    others = [float(np.dot(vectors[t], vectors[6])) for t in range(6)]
    assert values["to_other"] == pytest.approx(np.mean(others), abs=1e-5)
    # "again" shows the same picture under another name, so "b" is the stranger; the key knows it.
    assert (
        metric.clip_key(clips[0])[1] == metric.clip_key(clips[1])[1] != metric.clip_key(clips[2])[1]
    )
    with pytest.raises(ValueError, match="names no picture .* column image"):
        metric.score_clip(clip_of(frames))
    first = FirstPictureFidelity(encoder=encoder, picture="first_frame")
    assert first.score_clip(clip_of(frames)) == pytest.approx(
        {"score": np.mean(cosines[1:]), "last_second": np.mean(cosines[-2:])}, abs=1e-5
    )


def test_the_first_frame_of_a_stranger(tmp_path, dino_folder):
    colours = (40, 90, 90, 200)
    for number, level in enumerate(colours):
        frames = torch.full((3, 32, 32, 3), level, dtype=torch.uint8)
        frames[0, :16] //= 2
        write_video(tmp_path / f"{number}.mp4", frames, fps=2.0)
    (tmp_path / "4.mp4").write_bytes(b"no video")
    clips = [entry(folder=tmp_path, file=f"{number}.mp4") for number in range(5)]
    encoder = DinoEncoder(dino_folder)
    metric = FirstPictureFidelity(encoder=encoder, picture="first_frame")
    metric.prepare(clips, seed=0)
    keys = [metric.clip_key(clip) for clip in clips]
    # Files 1 and 2 are the same, so the stranger of both is 3.
    assert [key[1] for key in keys] == [keys[1][0], keys[3][0], keys[3][0], keys[4][0], keys[0][0]]
    frames = noise(3, 32, 48, seed=3)
    values = metric.score_clip(clip_of(frames, path=clips[0].path))
    other = read_clip(
        clips[1].path, start_seconds=0.0, num_frames=1, height=32, width=32, crop=None
    )[0]
    other = Image.fromarray(other.numpy()).resize(
        (48, 32), Image.Resampling.BICUBIC, (0, 5.333, 32, 26.667)
    )
    vectors = encoder.embed_images(
        torch.cat([frames[1:], torch.from_numpy(np.array(other))[None]])
    ).double()
    cosines = torch.nn.functional.cosine_similarity(vectors[:2], vectors[2:])
    assert values["to_other"] == pytest.approx(float(cosines.mean()), abs=1e-3)
    # What is wrong with the stranger is no failure of this clip.
    assert "to_other" not in metric.score_clip(clip_of(frames, path=clips[3].path))


def test_a_list_names_pictures(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "clips.csv").write_text("file,system,track,image\na.mp4,s,song.wav,dancer.png\n")
    [found], _ = list_clips(tmp_path)
    assert found.image == "dancer.png"


def lab(colour):
    """CIE 15 with the white of D65, one colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour / 255]
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
              [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
    x, y, z = np.array(matrix) @ linear / [0.95047, 1, 1.08883]
    f = [t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_colours_are_cies():
    frames = noise(3, 9, 11)
    expected = [np.mean([lab(c) for c in f.numpy().reshape(-1, 3)], axis=0) for f in frames]
    np.testing.assert_allclose(lab_means(frames).numpy(), expected, atol=0.01)
    red = torch.tensor([[[[255, 0, 0]]]], dtype=torch.uint8)
    assert lab_means(red)[0].tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.01)


def test_a_clip_that_turns_red_drifts():
    frames = torch.full((20, 4, 4, 3), 100, dtype=torch.uint8)
    frames[..., 0] += torch.arange(20, dtype=torch.uint8)[:, None, None] * 4
    values = ColourDrift().score_clip(clip_of(frames, fps=10.0))
    colours = [lab(f[0, 0].numpy()) for f in frames]
    away = [np.linalg.norm(colour - colours[0]) for colour in colours]
    last = np.linalg.norm(np.mean(colours[-10:], axis=0) - colours[0])
    assert values["score"] == pytest.approx(last, abs=0.01)
    slope = np.polyfit(np.arange(20) / 10, away, 1)[0]
    assert values["per_second"] == pytest.approx(slope, abs=0.01)
    assert values["per_second_shuffled"] < values["per_second"]
    order = shuffled_order(clip_of(frames, fps=10.0)).tolist()
    mixed = [colours[place] for place in order]
    expected = np.linalg.norm(np.mean(mixed[-10:], axis=0) - mixed[0])
    assert values["shuffled"] == pytest.approx(expected, abs=0.01)
    still = ColourDrift().score_clip(clip_of(frames[:1].expand(5, -1, -1, -1)))
    assert still["score"] == pytest.approx(0, abs=1e-9)
