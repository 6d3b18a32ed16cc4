import math

import numpy as np
import pytest
import torch

from dance_eval.metrics.motion import frame_difference, kinematic_beats
from musicinfuser.errors import UserError
from musicinfuser.media.video_writing import write_video
from small_world.experiments.lag_curve import LAGS_SECONDS, main, rows_of, scores_by_lag
from small_world.experiments.retiming import FPS, NUM_FRAMES, retimed


def gliding_square(num_frames, fps):
    frames = torch.zeros(num_frames, 24, 120, 3, dtype=torch.uint8)
    for index in range(num_frames):
        left = 2 + round(90 * index / num_frames)
        frames[index, 6:18, left : left + 12] = 200
    return frames


def test_a_video_stands_still_when_it_should():
    rests = np.arange(-2, 6, 0.53) + 0.017
    frames = retimed(gliding_square(120, 60.0), rests, fps=60.0, start=0.3)
    assert frames.shape == (NUM_FRAMES, 24, 120, 3)
    found = kinematic_beats(frame_difference(frames), fps=FPS).numpy()
    inside = rests[(rests > 0.2) & (rests < NUM_FRAMES / FPS - 0.2)]
    assert np.abs(found[:, None] - inside).min(axis=0).max() < 0.03
    with pytest.raises(UserError, match=r"of 0\.32 s is too short"):
        retimed(gliding_square(20, 60.0), rests, fps=60.0, start=0.0)


def gliding_light(num_frames):
    """Soft, so that it also moves by parts of a pixel."""
    middle = 20 + 80 * torch.arange(num_frames)[:, None] / num_frames
    across = torch.exp(-0.5 * ((torch.arange(120) - middle) / 6) ** 2)
    down = torch.exp(-0.5 * ((torch.arange(24) - 12) / 6) ** 2)
    levels = 250 * down[None, :, None] * across[:, None]
    return levels.round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3)


def test_the_score_of_a_video_falls_as_the_kernel_says():
    scores = scores_by_lag(gliding_light(300), fps=60.0, motion=None)
    kernel = [math.exp(-(lag**2) / (2 * 0.05**2)) for lag in LAGS_SECONDS]
    assert scores[:, 0] == pytest.approx(kernel, abs=0.05)
    assert scores[-1, 0] < scores[-1, 1] - 0.05
    rows = rows_of({"frames": np.stack([scores, np.zeros_like(scores)])})
    assert rows[0]["kernel"] == "1.00" and rows[2]["lag, ms"] == "50"
    assert rows[0]["frames"] == f"{scores[0, 0] / 2:.2f} (0.00 to {scores[0, 0]:.2f})"


def test_the_table_of_a_video(tmp_path, capsys):
    pytest.importorskip("cv2", reason="optical flow needs OpenCV")
    write_video(tmp_path / "a.mp4", gliding_square(90, 30.0), fps=30.0)
    main([str(tmp_path / "a.mp4")])
    printed = capsys.readouterr().out.splitlines()
    heads = [head.strip() for head in printed[0].split("|")]
    assert heads[3:5] == ["frames", "frames, chance"]
    assert len([line for line in printed if line]) == 2 + len(LAGS_SECONDS)
