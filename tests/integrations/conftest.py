"""The node package as ComfyUI imports it, adapters for it, and small models."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import MochiTransformer3DModel

from musicinfuser.adapters.card import CardFacts
from musicinfuser.adapters.folder import write_folder
from musicinfuser.adapters.settings import adapter_of_model
from musicinfuser.networks.backbone import initialise_randomly
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.networks.zica import ZicaSpec
from tests import small_wan
from tests.adapted import with_trained_values
from tests.conftest import ROOT
from tests.integrations.stand_in import comfy  # noqa: F401 - a fixture
from tests.networks.conftest import clip, pristine_backbone  # noqa: F401 - fixtures

CHANNELS = {"mochi": 12, "wan": 16, "wan_5b": 48}
LORA = LoraSpec(rank=2, alpha=3.0, targets=("attention", "feed_forward"))
ZICA = ZicaSpec(num_heads=4, positions="aligned", frame_window=1, query_norm=True)
NUM_LATENT = 3


@pytest.fixture(scope="session")
def nodes() -> ModuleType:
    """Imported from its folder by a path, under a name of its own."""
    path = ROOT / "integrations" / "comfyui" / "__init__.py"
    spec = importlib.util.spec_from_file_location("comfyui_nodes", path)
    module = sys.modules["comfyui_nodes"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def base(pristine_backbone) -> Callable[[str], Any]:  # noqa: F811 - a fixture
    def of(family: str) -> Any:
        if family != "mochi":
            channels = CHANNELS[family]
            return small_wan.transformer(in_channels=channels, out_channels=channels)
        # ComfyUI's is built with Mochi's own width of the noise level's embedding.
        model = MochiTransformer3DModel.from_config(pristine_backbone.config, time_embed_dim=256)
        initialise_randomly(model, seed=0)
        return model.eval().requires_grad_(False)

    return of


@pytest.fixture
def make_adapter(base, small_parts: Path, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """``make_adapter(family, **changes)``: a model with adapters, and the folder of those."""

    def make(family: str, **changes: Any) -> SimpleNamespace:
        options = {"layers": [0, 2], "zica": ZICA, "lora": LORA} | changes
        audio = TransformersAudio(str(small_parts), "audio_encoder")
        model = MusicModel(
            base(family), audio_width=audio.width, audio_resampling="centre",
            audio_times=audio.times, **options,
        )  # fmt: skip
        model = with_trained_values(model, seed=3).eval()
        settings = {
            "backbone": model.kind.sizes,
            "layers": list(model.layers),
            "zica": asdict(options["zica"]),
            "lora": asdict(options["lora"]) if options["lora"] else None,
            "audio_width": audio.width,
            "audio_resampling": "centre",
        }
        adapter = adapter_of_model(model, settings, Origin(audio.identity()))
        folder = tmp_path / f"adapter-{family}"
        write_folder(folder, adapter, facts=CardFacts(), config="seed_everything: 5\n")
        encoder = str(small_parts / "audio_encoder")
        return SimpleNamespace(model=model, folder=str(folder), encoder=encoder, audio=audio)

    return make


@pytest.fixture
def song() -> dict[str, Any]:
    """ComfyUI's AUDIO: two seconds of a chord that begins twice a second, in stereo."""
    rate = 44_100
    seconds = torch.arange(2 * rate) / rate
    tone = sum(torch.sin(2 * torch.pi * pitch * seconds) for pitch in (220, 277, 330))
    envelope = torch.exp(-8 * (seconds % 0.5))
    return {"waveform": (0.2 * tone * envelope).expand(1, 2, -1).clone(), "sample_rate": rate}
