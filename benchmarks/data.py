"""Clips per second of the real data module on full-size clips, and bytes per clip.

    python -m benchmarks.data --out benchmarks/results/data.json

Clips of noise are written as the encode job writes them, into a folder that is removed at the end.
Reading is from a warm page cache; a cold network disk is another matter. A step of 3 s with one
clip needs 0.33 clips per second.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as L

from benchmarks.random_model import random_clip
from benchmarks.report import Figure, command_of, parser, silence_lightning
from datamodules import DanceDataModule
from musicinfuser.media import latents

AUDIO_WIDTH = 768
# Of Mochi's text encoder; captions of AIST take about 30 tokens.
TEXT_TOKENS, TEXT_WIDTH, NUM_CHANNELS = 32, 4096, 12
# Pass for one worker, and for a clip's file.
GOAL_CLIPS_PER_S, GOAL_MB = 10.0, 9.0


def write_clips(cache: Path, settings: argparse.Namespace) -> int:
    """Clips of both sources with a caption each; bytes of one clip's file."""
    recipe = latents.EncodingRecipe(
        num_frames=settings.frames, height=settings.height, width=settings.width, fps=30.0,
        audio_channel="mean", dtype="bfloat16", max_text_tokens=256, vae="noise",
        text_encoder="noise", audio_encoder="noise",
        latents_mean=(0.0,) * NUM_CHANNELS, latents_std=(1.0,) * NUM_CHANNELS,
    )  # fmt: skip
    size = 0
    for i in range(settings.clips):
        source = ("aist", "youtube")[i % 2]
        clip = random_clip(
            settings.frames, settings.height, settings.width, seed=i,
            text_tokens=TEXT_TOKENS, text_width=TEXT_WIDTH, audio_width=AUDIO_WIDTH,
        )  # fmt: skip
        header = latents.ClipHeader(
            latents.clip_path(cache, source, f"clip_{i}"), recipe, source, f"clip_{i}",
            caption=f"dance {i}", base_caption="a dance video", music=f"music {i}", split="train",
            attributes={},
        )  # fmt: skip
        mean, logvar = clip.latent_mean[0], clip.latent_logvar[0]
        latents.write_clip(header, latent_mean=mean, latent_logvar=logvar, audio=clip.audio[0])
        for caption in (header.caption, header.base_caption):
            latents.write_caption(cache, caption, clip.text[0])
        size = header.path.stat().st_size
    return size


def clips_per_second(cache: Path, settings: argparse.Namespace, num_workers: int) -> list[float]:
    """Of every pass over as many clips as there are; the first, which warms up, is left out."""
    data = DanceDataModule(
        str(cache), num_frames=settings.frames, height=settings.height, width=settings.width,
        ratio={"aist": 1, "youtube": 1}, batch_size=1, caption_dropout=0.1,
        base_prompt_probability=0.2, seed=0, validation_source=None, num_workers=num_workers,
    )  # fmt: skip
    num_clips = settings.clips * (settings.repeats + 1)
    trainer = L.Trainer(
        max_steps=num_clips, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    data.trainer = trainer
    data.setup("fit")
    rates, began = [], time.perf_counter()
    for number, _ in enumerate(data.train_dataloader(), 1):
        if number % settings.clips == 0:
            rates.append(settings.clips / (time.perf_counter() - began))
            began = time.perf_counter()
    return rates[1:]


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Write, read with every number of workers."""
    silence_lightning()
    rates: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        size = write_clips(Path(folder), settings)
        for num_workers in settings.workers:
            rates[num_workers] = clips_per_second(Path(folder), settings, num_workers)
    figures = [Figure("a clip's file", size / 1e6, "MB", GOAL_MB, "limit: the goal, at most")]
    for num_workers, values in rates.items():
        processes = max(num_workers, 1)
        name = f"{num_workers} workers" if num_workers else "in the training process"
        figures.append(
            Figure(f"{name}: clips per second and process", median(values) / processes, "1/s",
                   GOAL_CLIPS_PER_S, "limit: the goal, at least")
        )  # fmt: skip
    return figures, {"clips_per_s": rates}


OPTIONS = parser(__doc__, "frames", "height", "width", clips=40, workers=[0, 1, 2], repeats=5)
main = command_of("data", OPTIONS, measure)

if __name__ == "__main__":
    main()
