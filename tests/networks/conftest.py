"""A small real backbone, inputs for it, and the recorded outputs of the authors' model."""

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import MochiTransformer3DModel
from safetensors.torch import load_file

from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests import published_mochi
from tests.adapted import with_memory, with_trained_values

GOLDEN = Path(__file__).parents[1] / "golden" / "official"
AUDIO_WIDTH = 96


@pytest.fixture(scope="session")
def pristine_backbone(small_parts: Path) -> MochiTransformer3DModel:
    """Three blocks of width 128, text width 96, as diffusers builds and runs them."""
    return build_backbone(BackboneSpec(pretrained=str(small_parts), dtype="float32"))


@pytest.fixture
def backbone(pristine_backbone: MochiTransformer3DModel) -> MochiTransformer3DModel:
    return copy.deepcopy(pristine_backbone)


@pytest.fixture
def make_model(pristine_backbone: MochiTransformer3DModel) -> Callable[..., MusicModel]:
    """``make_model(**changes)``: a fresh MusicModel on a copy of the backbone."""

    def make(*, dtype: torch.dtype = torch.float32, **changes: object) -> MusicModel:
        settings = {
            "layers": [0, 2],
            "zica": ZicaSpec(num_heads=4),
            "lora": LoraSpec(rank=2, alpha=2.0),
            "audio_width": AUDIO_WIDTH,
        }
        base = copy.deepcopy(pristine_backbone).to(dtype)
        return MusicModel(base, **with_memory(settings | changes))

    return make


@pytest.fixture
def clip() -> SimpleNamespace:
    """Inputs for two clips: 3 latent frames of 4x6, captions of 7 and 10 tokens, 20 of audio."""
    stream = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=stream)

    text_mask = torch.zeros(2, 10)
    text_mask[0, :7] = 1
    text_mask[1, :10] = 1
    return SimpleNamespace(
        latents=normal(2, 12, 3, 4, 6),
        timestep=torch.tensor([310.0, 870.5]),
        text=normal(2, 10, 64),
        text_mask=text_mask,
        text_lengths=(7, 10),
        audio=normal(2, 20, AUDIO_WIDTH),
    )


@pytest.fixture
def randomise() -> Callable[[MusicModel], MusicModel]:
    """Give every adapter values as training might, so that nothing is zero."""
    return functools.partial(with_trained_values, seed=3)


@pytest.fixture(scope="session")
def golden() -> SimpleNamespace:
    """The authors' model at a small size: its files, its inputs and what it computed."""
    stored = load_file(GOLDEN / "io.safetensors")
    return SimpleNamespace(
        dit=GOLDEN / "dit.safetensors",
        adapter=GOLDEN / "musicinfuser.safetensors",
        arch=json.loads((GOLDEN / "arch.json").read_text()),
        arch_path=GOLDEN / "arch.json",
        timestep=(1 - stored["sigma"]) * 1000,
        gradients={k.removeprefix("grad."): v for k, v in stored.items() if k.startswith("grad.")},
        **{name: value for name, value in stored.items() if not name.startswith("grad.")},
    )


@pytest.fixture(scope="session")
def mochi_shapes() -> Callable[..., dict[str, tuple[int, ...]]]:
    return published_mochi.shapes


@pytest.fixture(scope="session")
def adapted_modules() -> Callable[..., list[str]]:
    return published_mochi.lora_modules
