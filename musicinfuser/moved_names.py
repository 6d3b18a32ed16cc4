"""Class paths and keys of an earlier version that configs may still name."""

from typing import Any

_ACCURACY = "small_world.metrics.attribute_accuracy"
MOVED = {
    "dance_eval.metrics.clip_frame_features": "dance_eval.metrics.image_encoders",
    "callbacks.WholeCheckpoint": "callbacks.AtomicCheckpoint",
    "datamodules.CaptionDataModule": "small_world.data.CaptionDataModule",
    "datamodules.FrameDataModule": "small_world.data.FrameDataModule",
    "datamodules.LayerCellsDataModule": "datamodules.LayerRequestsDataModule",
    "datamodules.MusicDataModule": "small_world.data.MusicDataModule",
    "lightning_modules.AudioEncoderModule": "small_world.parts.AudioEncoderModule",
    "lightning_modules.AutoencoderModule": "small_world.parts.AutoencoderModule",
    "lightning_modules.TextEncoderModule": "small_world.parts.TextEncoderModule",
    "lightning_modules.TextToVideoModule": "small_world.parts.TextToVideoModule",
    "musicinfuser.judges": "dance_eval.judges",
    "musicinfuser.metrics": "dance_eval.metrics",
    "musicinfuser.metrics.clip_frame_features": "dance_eval.metrics.image_encoders",
    "musicinfuser.metrics.attributes": "small_world.metrics.attributes",
    "musicinfuser.metrics.pose": "small_world.metrics.pose",
    "musicinfuser.metrics.prompt_certainty": _ACCURACY,
    "musicinfuser.metrics.prompt_obedience": _ACCURACY,
    "musicinfuser.metrics.prompt_obedience.PromptObedience": f"{_ACCURACY}.AttributeAccuracy",
    "musicinfuser.metrics.torso_beat": "small_world.metrics.torso_beat_correlation",
    "musicinfuser.networks.music_mochi": "musicinfuser.networks.music_model",
    "musicinfuser.networks.music_mochi.MusicMochi": "musicinfuser.networks.music_model.MusicModel",
    "musicinfuser.sweeps": "sweeps",
    "small_world.metrics.attribute_accuracy.PromptObedience": f"{_ACCURACY}.AttributeAccuracy",
    "small_world.metrics.prompt_certainty": _ACCURACY,
}
"""What was there, and where it is now; everything below a module moved with it."""

RENAMED_KEYS = {
    "cells": "requests",
    "gradient_checkpointing": "memory.gradient_checkpointing",
    "compile_blocks": "memory.compile_blocks",
    "modulations_on_host": "memory.modulations_on_host",
    "stream_blocks": "memory.stream_blocks",
    "offload_inputs": "memory.offload_inputs",
    "warn_deaf_after": "warn_ignored_audio_after",
}
"""Keys of a config, by their last part, and their name of today in the same group."""

MOVED_KEYS = {
    "optimizer.warmup_steps": "schedule.warmup_steps",
    "optimizer.schedule": "schedule.decay",
}
"""Keys that stand in another group now, both with the group."""


def with_schedule(settings: dict[str, Any]) -> dict[str, Any]:
    """A model's settings of an earlier version, whose optimizer was AdamW with a schedule in it.

    Others come back as they are.
    """
    optimizer = settings.get("optimizer")
    if not isinstance(optimizer, dict) or "class_path" in optimizer or "lr" not in optimizer:
        return settings
    moved = {"warmup_steps": "warmup_steps", "schedule": "decay"}
    own = {key: value for key, value in optimizer.items() if key not in moved}
    schedule = {new: optimizer[old] for old, new in moved.items() if old in optimizer}
    return settings | {
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": own},
        "schedule": {"class_path": "lightning_modules.WarmUp", "init_args": schedule},
    }


def new_name(name: str) -> str | None:
    """The dotted name of today, None for one that did not move."""
    for old in sorted(MOVED, key=len, reverse=True):
        if name == old or name.startswith(f"{old}."):
            return MOVED[old] + name.removeprefix(old)
    return None
