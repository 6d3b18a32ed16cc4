"""Does beat alignment fall with the lag of the music as its kernel says, on people in videos?

    python -m small_world.experiments.lag_curve demo.mp4 cam01.mp4

Videos are re-timed so that people rest at known times, and the beats of the music come 0 to 250 ms
after these. The score over music beats should be exp(-lag^2 / 2 sigma^2), down to 0, below its
chance level. Rests are looked for in the difference of frames and in optical flow.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.optical_flow import OpticalFlow
from musicinfuser.errors import in_one_sentence
from musicinfuser.tables import Cell, Row, markdown_table
from small_world.experiments.retiming import FPS, NUM_FRAMES, read_small, retimed

LAGS_SECONDS = np.arange(0, 0.2501, 0.025)
PERIOD_SECONDS = 0.6
FIRST_SECONDS = 0.213
SIGMA_SECONDS = 0.05


def scores_by_lag(
    frames: torch.Tensor, *, fps: float, motion: MotionCurve | None
) -> NDArray[np.float64]:
    """Score and chance level at each of `LAGS_SECONDS`, shape (11, 2), of one video.

    Takes its frames, uint8 (N, H, W, 3). Beats belong to the rests that are inside the clip.
    """
    rests = np.asarray(FIRST_SECONDS + PERIOD_SECONDS * np.arange(-2, 8), np.float64)
    clip_frames = retimed(frames, rests, fps=fps, start=0.5)
    end = NUM_FRAMES / FPS - LAGS_SECONDS[-1]
    inside = rests[(rests > 0) & (rests < end)]
    metric = BeatAlignment(motion=motion, average_over="music", sigma_seconds=SIGMA_SECONDS)
    clip = ScoredClip(clip_frames, FPS, None, 16_000, name="re-timed", seed=0)
    moments = metric.motion_moments(clip)
    found = []
    for lag in LAGS_SECONDS:
        beats = torch.from_numpy(inside + lag)
        values = metric.values_of(moments, beats, clip=clip, duration_seconds=clip.duration_seconds)
        found.append((values["score"], values["chance"]))
    return np.array(found)


def rows_of(curves: dict[str, NDArray[np.float64]]) -> list[Row]:
    """A row per lag: the kernel, and mean, least and most over videos of each kind of motion.

    Takes scores of shape (videos, 11, 2) by the name of the motion.
    """
    rows: list[Row] = []
    for number, lag in enumerate(LAGS_SECONDS):
        kernel = float(np.exp(-(lag**2) / (2 * SIGMA_SECONDS**2)))
        row: dict[str, Cell] = {"lag, ms": f"{1000 * lag:.0f}", "kernel": f"{kernel:.2f}"}
        for name, scores in curves.items():
            own = scores[:, number, 0]
            row[name] = f"{own.mean():.2f} ({own.min():.2f} to {own.max():.2f})"
            row[f"{name}, chance"] = f"{scores[:, number, 1].mean():.2f}"
        rows.append(row)
    return rows


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, score and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.experiments.lag_curve",
        description="Does beat alignment fall with the lag of the music as its kernel says?",
    )
    parser.add_argument("videos", type=Path, nargs="+")
    options = parser.parse_args(args)
    motions: dict[str, MotionCurve | None] = {
        "frames": None,
        "flow": OpticalFlow(remove_camera=True),
    }
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in motions}
    for video in options.videos:
        frames, fps = read_small(video)
        for name, motion in motions.items():
            found[name].append(scores_by_lag(frames, fps=fps, motion=motion))
    print(markdown_table(rows_of({name: np.stack(own) for name, own in found.items()})))


if __name__ == "__main__":
    with in_one_sentence("lag_curve"):
        main()
