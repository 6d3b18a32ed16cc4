"""CLIP, DINO and VideoMAE of the real classes with random weights, small enough for a CPU."""

import string
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
)

from musicinfuser.keyed_random import generator

CLIP_SIDE = 32
DINO_SIDE = 24
PATCH = 8
WIDTH = 16


def write_small_clip(folder: Path, *, seed: int = 0) -> str:
    """A CLIP with its tokenizer, which knows letters; sentences of up to 40 tokens."""
    letters = string.ascii_lowercase + string.digits + ".,"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_factor": 4.0,
    }
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**tower, "vocab_size": len(tokens), "max_position_embeddings": 40, **ends}
    vision = {**tower, "image_size": CLIP_SIDE, "patch_size": PATCH}
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=WIDTH, initializer_factor=4.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    return str(folder)


def write_small_dino(folder: Path, *, seed: int = 0) -> str:
    """A ViT whose position embeddings matter."""
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=DINO_SIDE,
        patch_size=PATCH,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ViTModel(config, add_pooling_layer=False)
        torch.nn.init.normal_(model.embeddings.position_embeddings)
    model.save_pretrained(folder)
    return str(folder)


def noise(num_frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Frames without any pattern, uint8 (T, H, W, 3)."""
    stream = generator(seed, 0, "test frames")
    return torch.randint(256, (num_frames, height, width, 3), generator=stream, dtype=torch.uint8)


def write_small_videomae(folder: Path, *, seed: int = 0) -> str:
    """A VideoMAE of eight frames."""
    config = VideoMAEConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=DINO_SIDE,
        patch_size=PATCH,
        num_frames=8,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        VideoMAEModel(config).save_pretrained(folder)
    return str(folder)


def write_small_dinov2(folder: Path, *, seed: int = 0) -> str:
    """A DINOv2 whose position embeddings matter."""
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=DINO_SIDE,
        patch_size=PATCH,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Dinov2Model(config)
    model.save_pretrained(folder)
    return str(folder)
