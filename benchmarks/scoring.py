"""Seconds that `evaluate.py score` takes for clips of full size with all metrics of pixels.

    python -m benchmarks.scoring --out benchmarks/results/scoring.json

Dancing squares over a texture, with clicks for music, are written into a folder that is removed at
the end; every clip is decoded, its beats and onsets are found by librosa and its optical flow is
computed, as for any folder. On a busy machine the seconds of CPU say more than those on the clock.
"""

import argparse
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import evaluate
from benchmarks.report import Figure, command_of, parser
from dance_eval.metrics.report import read_report
from musicinfuser.keyed_random import generator
from musicinfuser.media.video_writing import write_video

# 100 clips in less than five minutes on two cores.
GOAL_S, GOAL_CLIPS, GOAL_CORES = 300.0, 100, 2
AUDIO_RATE_HZ, FPS = 32000, 30.0


def dance(seed: int, *, num_frames: int, height: int, width: int) -> torch.Tensor:
    """A bright square that swings over a texture, uint8 (T, H, W, 3)."""
    stream = generator(seed, 0, "texture")
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=stream)
    texture = functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    ground = (30 + 150 * texture).round().to(torch.uint8).permute(1, 2, 0)
    side = height // 3
    frames = ground.repeat(num_frames, 1, 1, 1)
    for index in range(num_frames):
        swing = math.cos(2 * math.pi * index / FPS + seed)
        left = round((width - side) / 2 * (1 + 0.6 * swing))
        frames[index, side : 2 * side, left : left + side] = 230
    return frames


def clicks(num_frames: int, seed: int) -> torch.Tensor:
    """A click every half second, float32 (S,)."""
    sound = torch.zeros(round(num_frames / FPS * AUDIO_RATE_HZ))
    times = torch.arange(round(0.03 * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    click = 0.8 * torch.sin(2 * math.pi * 1000 * times) * torch.exp(-times / 0.006)
    for start in range(round(0.05 * (seed % 7) * AUDIO_RATE_HZ), len(sound), AUDIO_RATE_HZ // 2):
        end = min(start + len(click), len(sound))
        sound[start:end] += click[: end - start]
    return sound


def write_clips(folder: Path, settings: argparse.Namespace) -> None:
    """A folder of clips; few are drawn, all others are copies under another name."""
    for number in range(settings.clips):
        file = folder / f"clip{number}.mp4"
        if number < settings.different:
            frames = dance(
                number, num_frames=settings.frames, height=settings.height, width=settings.width
            )
            sound = clicks(settings.frames, number)
            write_video(file, frames, fps=FPS, audio=sound, audio_rate_hz=AUDIO_RATE_HZ)
        else:
            shutil.copy(folder / f"clip{number % settings.different}.mp4", file)


def score(folder: Path, output: Path, settings: argparse.Namespace, *, num_workers: int) -> float:
    """Score a folder; returns seconds of CPU of this process, not of others."""
    before = time.process_time()
    command = ["score", str(folder), f"--metrics={settings.metrics}", f"--output={output}"]
    evaluate.main([*command, f"--num_workers={num_workers}"])
    return time.process_time() - before


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Write clips, score a few in this process and all in several."""
    with tempfile.TemporaryDirectory() as place:
        folder, few = Path(place, "clips"), Path(place, "few")
        few.mkdir()
        write_clips(folder, settings)
        for number in range(settings.different):
            shutil.copy(folder / f"clip{number}.mp4", few)
        # Once to load and compile what is needed, once to measure.
        score(few, few / "once.json", settings, num_workers=1)
        cpu = score(few, few / "again.json", settings, num_workers=1) / settings.different
        began = time.perf_counter()
        score(folder, Path(place, "metrics.json"), settings, num_workers=settings.num_workers)
        seconds = time.perf_counter() - began
        document = read_report(Path(place, "metrics.json"))
    failed = sum(bool(clip["failures"]) for clip in document["clips"])
    goal = GOAL_S / GOAL_CLIPS
    one = f"a clip of {settings.frames} frames, {settings.height}x{settings.width}"
    figures = [
        Figure(f"{one}: CPU", cpu, "s", goal * GOAL_CORES,
               f"in one process; limit: {GOAL_CORES} cores for the goal's time"),
        Figure(f"{settings.clips} such clips: on the clock", seconds, "s", goal * settings.clips,
               f"{settings.num_workers} processes, starting included; limit: the goal"),
        Figure("clips that failed", failed, ""),
    ]  # fmt: skip
    return figures, {"metrics": [spec["init_args"]["name"] for spec in document["metrics"]]}


OPTIONS = parser(
    __doc__, "frames", "height", "width", clips=GOAL_CLIPS, num_workers=GOAL_CORES,
    different={"type": int, "default": 4, "help": "the others are copies"},
    metrics="dance_eval/configs/pixel_metrics.yaml",
)  # fmt: skip
main = command_of("scoring", OPTIONS, measure)

if __name__ == "__main__":
    main()
