"""The recipe with a small model, and batches of noise, for measurements on a CPU."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.profiles import CONFIGS, SMALL_AUDIO_WIDTH, SMALL_CONFIG, laid_over
from datamodules.batch import ClipBatch, ClipItem, collate
from lightning_modules import MusicInfuserModule
from lightning_modules.cli import MusicInfuserCLI
from musicinfuser.clip_size import latent_shape
from musicinfuser.keyed_random import generator

NUM_CHANNELS, AUDIO_TOKENS, TEXT_TOKENS = 12, 124, 32
NUM_LAYERS = 4


def small_recipe(root: Path, *, max_steps: int) -> MusicInfuserCLI:
    """``base.yaml`` with a model of four small blocks in fp32; nothing is run.

    Args:
        root: Folder of the run.
        max_steps: Optimizer steps.
    """
    architecture = root / "architecture.json"
    architecture.write_text(json.dumps(SMALL_CONFIG | {"num_layers": NUM_LAYERS}))
    changes: dict[str, Any] = {
        "ckpt_path": None,
        "trainer": {
            "default_root_dir": str(root), "max_steps": max_steps, "precision": "32-true",
            "accelerator": "cpu", "devices": 1, "val_check_interval": None, "limit_val_batches": 0,
            "enable_model_summary": False,
        },
        "model": {"init_args": {
            "backbone": {"pretrained": None, "config": str(architecture), "dtype": "float32"},
            "audio_width": SMALL_AUDIO_WIDTH, "layers": [0, 2],
            "memory": {"gradient_checkpointing": "none", "compile_blocks": False},
        }},
    }  # fmt: skip
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(laid_over(base, changes)))
    return MusicInfuserCLI([f"--config={path}"], run=False)


def recipe_module(cli: MusicInfuserCLI) -> MusicInfuserModule:
    """The module of a recipe, with its weights."""
    module = cli.model
    assert isinstance(module, MusicInfuserModule)
    module.configure_model()
    return module


def noise_batch(num_frames: int, height: int, width: int) -> ClipBatch:
    """A batch of one clip of noise.

    Args:
        num_frames: 6k + 1.
        height: Pixels.
        width: Pixels.
    """
    stream = generator(0, "clip", "noise batch")
    shape = latent_shape(num_frames, height, width, channels=NUM_CHANNELS)
    mean, logvar = torch.randn(2, *shape, generator=stream)
    item = ClipItem(
        sample_index=0, clip_id="noise", latent_mean=mean, latent_logvar=logvar - 4,
        audio=torch.randn(AUDIO_TOKENS, SMALL_AUDIO_WIDTH, generator=stream), other_audio=None,
        text=torch.randn(TEXT_TOKENS, SMALL_CONFIG["text_embed_dim"], generator=stream),
        latents_mean=torch.zeros(NUM_CHANNELS), latents_std=torch.ones(NUM_CHANNELS),
    )  # fmt: skip
    return collate([item])
