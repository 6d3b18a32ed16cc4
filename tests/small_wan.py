"""Small parts of Wan with random weights, of the real classes and in their layout; runs of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

from benchmarks.random_parts import VAE, VAE_5B, wan_index
from musicinfuser.adapters.card import CardFacts
from musicinfuser.adapters.folder import write_folder
from musicinfuser.adapters.settings import adapter_of_model
from musicinfuser.networks.backbone import BackboneSpec, build_backbone, initialise_randomly
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.adapted import with_trained_values
from tests.conftest import cli_arguments, encode_arguments
from train import main

TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 64,
    "freq_dim": 64,
    "ffn_dim": 256,
    "num_layers": 3,
}
TEXT: dict[str, Any] = {
    "vocab_size": 384,
    "d_model": 64,
    "d_kv": 32,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
LORA, ZICA = LoraSpec(rank=2, alpha=6.0), ZicaSpec(num_heads=4, positions="aligned")


def transformer(**changes: Any) -> WanTransformer3DModel:
    """Three blocks of width 128 in fp32; nothing in it is zero."""
    model = WanTransformer3DModel(**(TRANSFORMER | changes)).eval()
    initialise_randomly(model, seed=0)
    return model.requires_grad_(False)


def vae(**changes: Any) -> AutoencoderKLWan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderKLWan(**(VAE | changes)).eval()


def text_encoder() -> UMT5EncoderModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UMT5EncoderModel(UMT5Config(**TEXT)).eval()


def pipeline(scheduler: Any, *, model: WanTransformer3DModel | None = None) -> WanPipeline:
    """diffusers' own pipeline of the small parts, as it comes."""
    made = WanPipeline(
        tokenizer=ByT5Tokenizer(), text_encoder=text_encoder(), vae=vae(), scheduler=scheduler,
        transformer=transformer() if model is None else model,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def write_parts(folder: Path, *, is_5b: bool = False) -> Path:
    """A folder as diffusers' pipelines have it."""
    channels = {"in_channels": 48, "out_channels": 48} if is_5b else {}
    transformer(**channels).save_pretrained(folder / "transformer")
    vae(**(VAE_5B if is_5b else {})).save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(wan_index(takes_image=is_5b)))
    return folder


def trained_on(parts: Path, family: str) -> MusicModel:
    """Adapters as training might leave them, on a base of any family: nothing is zero."""
    spec = BackboneSpec(pretrained=str(parts), dtype="float32", family=family)
    model = MusicModel(
        build_backbone(spec), layers=[0, 2], zica=ZICA, lora=LORA, audio_width=96,
        audio_resampling="centre",
    )  # fmt: skip
    return with_trained_values(model)


def write_adapter(folder: Path, model: MusicModel) -> Path:
    """The adapters of `trained_on`, written as AdapterExport does."""
    settings = {
        "backbone": model.kind.sizes,
        "layers": list(model.layers),
        "zica": asdict(ZICA),
        "lora": asdict(LORA),
        "audio_width": 96,
        "audio_resampling": "centre",
    }
    adapter = adapter_of_model(model, settings)
    write_folder(folder, adapter, facts=CardFacts(), config=adapter.settings.as_yaml())
    return folder


class Runs:
    """``run(verb, *arguments)`` on base.yaml, wan_1b.yaml or wan_5b.yaml, and tests/tiny.yaml.

    Attributes:
        parts: Random ones.
        cache: The session's media, encoded with them.
        root: The runs' folder, unless another is given.
    """

    def __init__(
        self, folder: Path, small_parts: Path, media: Path, size: dict[str, int], *,
        is_5b: bool = False,
    ) -> None:  # fmt: skip
        self.parts = write_parts(folder / "parts", is_5b=is_5b)
        self.cache, self.root = folder / "cache", folder / "run"
        self._small_parts = small_parts
        self._overlay, encoding = ("wan_5b", "wan_5b_encode") if is_5b else ("wan_1b", "wan_encode")
        self._size = [f"--data.init_args.{name}={value}" for name, value in size.items()]
        mochi = f"--model.init_args.encoders.mochi={self.parts}"
        main([*encode_arguments(small_parts, media, self.cache, encoding), mochi, *self._size])

    def line(self, verb: str, *arguments: str, root: Path | None = None) -> list[str]:
        """The arguments of a command."""
        audio = f"--model.init_args.encoders.audio={self._small_parts}"
        return cli_arguments(
            verb, audio, *self._size, *arguments, parts=self.parts, cache=self.cache,
            root=root or self.root, overlays=[self._overlay],
        )  # fmt: skip

    def __call__(self, verb: str, *arguments: str, root: Path | None = None) -> Any:
        """Run a command."""
        return main(self.line(verb, *arguments, root=root))
