"""Entries and clips for tests of metrics over sets."""

from pathlib import Path

import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry


def entry(system="s", folder="videos", **fields):
    values = dict(track="music/song.wav", prompt="a dance", seed=0)
    return ClipEntry(Path(folder), fields.pop("file", "clip.mp4"), system, **values | fields)


def flickering(hertz, *, num_frames=73, fps=30.0, name="clip"):
    """A clip whose motion (the difference of frames) swings at a frequency."""
    times = torch.arange(num_frames) / fps
    level = 120 + 100 * torch.sin(torch.pi * hertz * times)
    frames = torch.zeros(num_frames, 8, 8, 3, dtype=torch.uint8)
    frames += level.round().to(torch.uint8)[:, None, None, None]
    return ScoredClip(frames, fps, None, 16000, name=name, seed=0)


def combined(metric, clips, system="s", **options):
    """Values of a list of (clip, entry)."""
    placed = [(metric.describe(clip), metric.labels_of(e, system=system)) for clip, e in clips]
    kept = [(numbers, labels) for numbers, labels in placed if labels is not None]
    return metric.combine([n for n, _ in kept], [labels for _, labels in kept], **options)
