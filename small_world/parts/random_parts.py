"""A small folder of Mochi's parts with random weights, of the real classes and in their layout.

``python -m small_world.parts.random_parts FOLDER`` writes what `BackboneSpec` and
`EncodersSpec` read, so that the whole chain runs without the 10-billion-parameter weights. Its
videos are noise: the weights are random.
"""

import json
import sys
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
from musicinfuser.atomic_files import atomic_folder
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.label_files import read_yaml
from musicinfuser.networks.backbone import initialise_randomly


def write_small_parts(folder: str | Path, *, seed: int = 0, num_layers: int = 6) -> None:
    """Write every part, or keep the folder if it is complete. Made whole or not at all.

    They are ``transformer`` (of so many blocks), ``vae``, ``text_encoder``, ``tokenizer``,
    ``audio_encoder`` and ``scheduler``. `UserError` if the folder holds something else.
    """
    folder = Path(folder)
    if (folder / "model_index.json").is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something else; name a folder that does not exist yet.")
    with atomic_folder(folder) as temporary, torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_random.key(seed, 0, "small parts"))
        _write(temporary, seed=seed, num_layers=num_layers)


def _write(folder: Path, *, seed: int, num_layers: int) -> None:
    configs = read_yaml(Path(__file__).with_suffix(".yaml"))
    backbone = MochiTransformer3DModel(**configs["transformer"], num_layers=num_layers)
    initialise_randomly(backbone, seed=seed)
    backbone.save_pretrained(folder / "transformer")
    AutoencoderKLMochi(**configs["vae"]).save_pretrained(folder / "vae")
    text_config, audio_config = T5Config(**configs["text"]), Wav2Vec2Config(**configs["audio"])
    T5EncoderModel(text_config).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
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
