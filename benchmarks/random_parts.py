"""Parts with random weights in diffusers' layout, the transformer at any size, and videos of noise.

VAE, text encoder and audio encoder are small ones of the real classes, whose outputs are as wide as
the real ones'.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards

from benchmarks.profiles import backbone, family_of, read_profile
from benchmarks.report import GIB
from musicinfuser.atomic_files import write_text
from musicinfuser.clip_size import geometry_of
from musicinfuser.networks.backbone import random_weight
from musicinfuser.networks.backbones import Backbone
from musicinfuser.safetensors_files import StoredTensor, stream_tensors

AUDIO_WIDTH = 768  # configs/base.yaml: wav2vec 2.0 base
VAE: dict[str, Any] = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
# Wan 2.2's: patches of 2x2 pixels, blocks with a shortcut, 48 channels.
VAE_5B = VAE | {
    "z_dim": 48, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
    "scale_factor_spatial": 16, "latents_mean": [0.1 * i for i in range(48)],
    "latents_std": [1 + 0.02 * i for i in range(48)],
}  # fmt: skip
TEXT = {
    "vocab_size": 384, "d_kv": 64, "d_ff": 128, "num_layers": 1, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
}  # fmt: skip
AUDIO = {
    "hidden_size": AUDIO_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 192, "conv_dim": [48] * 7, "num_conv_pos_embeddings": 64,
    "num_conv_pos_embedding_groups": 8,
}  # fmt: skip
# One for training; two, of different held-out music, for validation.
AIST_FILES = (
    "gBR_sBM_c01_d04_mBR1_ch03", "gBR_sBM_c01_d04_mBR0_ch02", "gHO_sBM_c01_d20_mHO5_ch02",
)  # fmt: skip
# More than a machine has memory cannot be mapped at once.
LARGEST_FILE = "5GB"
_STEM = "diffusion_pytorch_model"
_STORED = {torch.bfloat16: "BF16", torch.float32: "F32"}


def write_transformer(
    folder: Path, profile: str, num_layers: int | None = None, size: str = "full"
) -> dict[str, Any]:
    """The transformer of a profile with random weights, in bf16, those that `build_backbone` draws.

    Files are as diffusers splits them; one tensor is in memory at a time.

    Args:
        folder: Where its config and weights go.
        profile: As `read_profile` takes it.
        num_layers: Blocks; by default all.
        size: ``full`` or ``small``.

    Returns:
        ``parameters``, and ``file_gib`` of its files.
    """
    config = read_profile(profile)
    with torch.device("meta"):
        made = backbone(config, num_layers=num_layers, size=size)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dict(made.named_parameters())
    split = split_torch_state_dict_into_shards(
        parameters, filename_pattern=f"{_STEM}{{suffix}}.safetensors", max_shard_size=LARGEST_FILE
    )
    for file, names in split.filename_to_tensors.items():
        plan = {}
        for name in names:
            like = parameters[name]
            stored = StoredTensor(_STORED[like.dtype], tuple(like.shape))
            plan[name] = (stored, partial(_weight, family_of(config), name, like))
        stream_tensors(plan, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_text(folder / f"{_STEM}.safetensors.index.json", json.dumps(index))
    made.save_config(folder)
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    count = sum(parameter.numel() for parameter in parameters.values())
    return {"file_gib": size_bytes / GIB, "parameters": count}


def _weight(kind: type[Backbone], name: str, like: torch.Tensor) -> torch.Tensor:
    return random_weight(kind, name, like.shape, seed=0).to(like.dtype)


def write_wan(folder: Path, profile: str, num_layers: int | None) -> dict[str, Any]:
    """Random parts in the layout of diffusers' `WanPipeline`; returns as `write_transformer`."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
    from transformers import (
        ByT5Tokenizer,
        UMT5Config,
        UMT5EncoderModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    found = write_transformer(folder / "transformer", profile, num_layers=num_layers)
    made = json.loads((folder / "transformer" / "config.json").read_text())
    takes_image = geometry_of(family_of(read_profile(profile)).family).takes_image
    torch.manual_seed(0)
    AutoencoderKLWan(**(VAE_5B if takes_image else VAE)).save_pretrained(folder / "vae")
    text = UMT5Config(**TEXT, d_model=made["text_dim"])
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    Wav2Vec2Model(Wav2Vec2Config(**AUDIO)).save_pretrained(folder / "audio_encoder")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "audio_encoder")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    write_text(folder / "model_index.json", json.dumps(wan_index(takes_image=takes_image)))
    return found


def wan_index(*, takes_image: bool) -> dict[str, Any]:
    """What the folder of a `WanPipeline` says of itself."""
    return {
        "_class_name": "WanPipeline", "boundary_ratio": None, "expand_timesteps": takes_image,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "ByT5Tokenizer"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }  # fmt: skip


def write_media(folder: Path) -> None:
    """Videos of noise with tones, as many as a training and a validation need, and a picture."""
    from PIL import Image

    from musicinfuser.media.video_writing import write_video

    names = [f"aist/{name}" for name in AIST_FILES] + ["youtube/noise"]
    for i, name in enumerate(names):
        stream = torch.Generator().manual_seed(i)
        frames = torch.randint(256, (36, 9, 16, 3), generator=stream, dtype=torch.uint8)
        frames = frames.repeat_interleave(40, dim=1).repeat_interleave(40, dim=2)
        tone = 0.3 * torch.sin(torch.arange(57_600) * (0.03 + 0.01 * i))
        path = folder / f"{name}.mp4"
        write_video(path, frames, fps=30.0, audio=tone, audio_rate_hz=48_000)
        if name.startswith("youtube"):
            write_text(path.with_suffix(".txt"), "noise")
            Image.fromarray(frames[0].numpy()).save(folder / "picture.png")
