"""A small folder of Mochi's parts with random weights, of the real classes and in their layout.

``python -m small_world.parts.random_parts FOLDER`` writes what `BackboneSpec` and
`EncodersSpec` read, so that the whole chain runs without the 10-billion-parameter weights. Its
videos are noise: the weights are random.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiTransformer3DModel
from transformers import (
    ByT5Tokenizer,
    T5Config,
    T5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from musicinfuser import keyed_random
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.networks.backbone import initialise_randomly

TEXT_WIDTH = 64
AUDIO_WIDTH = 96


def write_small_parts(folder: str | Path, *, seed: int = 0, num_layers: int = 6) -> None:
    """Write every part, or keep the folder if it is complete. Made whole or not at all.

    Args:
        folder: Where ``transformer``, ``vae``, ``text_encoder``, ``tokenizer``, ``audio_encoder``
            and ``scheduler`` go.
        seed: Seed of all weights.
        num_layers: Blocks of the transformer.

    Raises:
        ValueError: The folder holds something else.
    """
    folder = Path(folder)
    if (folder / "model_index.json").is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something else; name a folder that does not exist yet.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        parts = Path(temporary) / "parts"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.key(seed, 0, "small parts"))
            _write(parts, seed=seed, num_layers=num_layers)
        parts.rename(folder)


def _write(folder: Path, *, seed: int, num_layers: int) -> None:
    backbone = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        num_layers=num_layers,
        pooled_projection_dim=96,
        text_embed_dim=TEXT_WIDTH,
        time_embed_dim=64,
    )
    initialise_randomly(backbone, seed=seed)
    backbone.save_pretrained(folder / "transformer")
    # Two levels, no convolution at full resolution: 6x8x8 at a small share of the usual cost.
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(12, 32, 64),
        decoder_block_out_channels=(12, 32, 64),
        layers_per_block=(0, 1, 1, 1),
        temporal_expansions=(2, 3),
        spatial_expansions=(4, 2),
        add_attention_block=(False, False, False, False),
    )
    vae.save_pretrained(folder / "vae")
    text_config = T5Config(
        vocab_size=384, d_model=TEXT_WIDTH, d_kv=32, d_ff=128, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    T5EncoderModel(text_config).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    audio_config = Wav2Vec2Config(
        hidden_size=AUDIO_WIDTH, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192,
        conv_dim=(48,) * 7, num_conv_pos_embeddings=64, num_conv_pos_embedding_groups=8,
    )  # fmt: skip
    Wav2Vec2Model(audio_config).save_pretrained(folder / "audio_encoder")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "audio_encoder")
    write_pipeline_rest(folder)


def write_pipeline_rest(folder: Path) -> None:
    """The scheduler and the index that make a folder of parts a `MochiPipeline`."""
    FlowMatchEulerDiscreteScheduler(invert_sigmas=True).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "MochiPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "ByT5Tokenizer"],
        "transformer": ["diffusers", "MochiTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLMochi"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m small_world.parts.random_parts FOLDER")
    with in_one_sentence("small_parts"):
        write_small_parts(sys.argv[1])
    print(f"Mochi's parts at a small size, with random weights: {sys.argv[1]}")
