"""A data module of a cache, and what each of several processes reads of it."""

from pathlib import Path
from types import SimpleNamespace

import torch

from datamodules import DanceDataModule
from datamodules.batch import ClipBatch


def data_module(cache: Path, **changes) -> DanceDataModule:
    options = {
        "num_frames": 7,
        "height": 32,
        "width": 32,
        "ratio": {"aist": 1, "youtube": 1},
        "batch_size": 2,
        "caption_dropout": 0.1,
        "base_prompt_probability": 0.2,
        "seed": 0,
        "num_workers": 0,
    } | changes
    return DanceDataModule(str(cache), **options)


def as_rank(data: DanceDataModule, rank: int, world_size: int, *, step: int = 0, accumulation=1):
    """Stand in for the trainer of one of several processes."""
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        global_step=step,
        max_steps=4,
        accumulate_grad_batches=accumulation,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def batches(cache: Path, stage: str, rank: int, world_size: int, **changes) -> list[ClipBatch]:
    trainer = {k: changes.pop(k) for k in ("step", "accumulation") if k in changes}
    data = as_rank(data_module(cache, **changes), rank, world_size, **trainer)
    data.setup("fit" if stage == "train" else "validate")
    return list(data.train_dataloader() if stage == "train" else data.val_dataloader())


def by_sample(all_batches: list[ClipBatch]) -> dict[int, tuple]:
    return {
        index: (
            batch.clip_ids[row],
            batch.text_lengths[row],
            batch.latent_mean[row].sum().item(),
            None if batch.music_weight is None else batch.music_weight[row].item(),
        )
        for batch in all_batches
        for row, index in enumerate(batch.sample_index)
    }
