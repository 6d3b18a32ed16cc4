"""How much disk a run fills, and whether it is there."""

import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint

from musicinfuser.clip_size import LatentGeometry, latent_shape
from musicinfuser.media.audio import clip_audio_seconds
from musicinfuser.networks.audio_encoder import AudioEncoder
from preflight.report import Report, count, gigabytes

# Header of a clip's file, rounded up to the disk's blocks.
HEADER_BYTES = 8_192
# fp32 weight and Adam's two moments; gradients are not saved.
CHECKPOINT_BYTES_PER_TRAINED = 12
FP32_BYTES = 4


def free_bytes(path: str | Path) -> int:
    """Free space where a folder is or would be made."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def clip_bytes(
    num_frames: int,
    height: int,
    width: int,
    *,
    fps: float,
    value_bytes: int,
    geometry: LatentGeometry,
    audio: AudioEncoder,
) -> int:
    """Size of an encoded clip: mean and log variance of its latents, and its audio features."""
    latents = math.prod(latent_shape(num_frames, height, width, geometry=geometry))
    num_samples = math.ceil(audio.rate_hz * clip_audio_seconds(num_frames, fps=fps))
    features = audio.num_features(num_samples) * audio.width
    return 2 * latents * value_bytes + features * FP32_BYTES + HEADER_BYTES


def caption_bytes(captions: Iterable[str], *, width: int, value_bytes: int, max_tokens: int) -> int:
    """At most what the features of captions take: no tokenizer makes more tokens than bytes."""
    return sum(
        min(len(caption.encode()) + 1, max_tokens) * width * value_bytes + HEADER_BYTES
        for caption in captions
    )


def num_checkpoints(callback: ModelCheckpoint, max_steps: int) -> int:
    """How many files a callback keeps by the end of a run."""
    every = callback._every_n_train_steps
    kept = callback.save_top_k
    if kept == -1:
        kept = max_steps // every if every and max_steps > 0 else 1
    return kept + (callback.save_last is True)


def check_checkpoints(
    callbacks: Iterable[object],
    *,
    num_trained: int,
    num_averages: int,
    max_steps: int,
    root: str | Path,
    report: Report,
) -> list[str]:
    """Lines on what checkpoints take; too little room for them becomes a problem.

    Each holds the trained parameters and their running averages; ``root`` is where a callback
    names no folder.
    """
    size = num_trained * (CHECKPOINT_BYTES_PER_TRAINED + num_averages * FP32_BYTES)
    lines = []
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint):
            continue
        folder = Path(callback.dirpath or root)
        number = num_checkpoints(callback, max_steps)
        there = sum(path.stat().st_size for path in folder.glob("*.ckpt"))
        needed = max(number * size - there, 0)
        lines.append(
            f"checkpoints: {number} x {gigabytes(size):.3f} GB in {folder}, {gigabytes(there):.3f} "
            f"GB there already, {gigabytes(free_bytes(folder)):.1f} GB free"
        )
        require_room(folder, needed, count(number, "checkpoint"), report)
    return lines or ["checkpoints: none (no ModelCheckpoint among trainer.callbacks)"]


def require_room(folder: str | Path, needed: float, what: str, report: Report) -> None:
    """Note a problem if a folder cannot be written, or its disk has less free than needed."""
    there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        report.problem(f"{folder} cannot be written: {there} is no folder that you may write.")
    free = free_bytes(folder)
    if needed > free:
        report.problem(
            f"{what} need {gigabytes(needed):.1f} GB more in {folder}, where "
            f"{gigabytes(free):.1f} GB are free; make room, keep fewer, or name another disk."
        )
