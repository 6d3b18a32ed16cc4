"""A base, an adapter of ours in a folder, and songs."""

import copy
import math
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline
from peft import get_peft_model_state_dict

from musicinfuser import MusicInfuserPipeline
from musicinfuser.media.audio import write_wav
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests import small_wan
from tests.adapted import with_trained_values

SIZE = {"num_frames": 13, "height": 32, "width": 48}
RATE_HZ = 22_050


@pytest.fixture(scope="session")
def trained(small_parts: Path) -> MusicModel:
    """Adapters as training might leave them: nothing is zero."""
    model = MusicModel(
        build_backbone(BackboneSpec(pretrained=str(small_parts), dtype="float32")),
        layers=[0, 2],
        zica=ZicaSpec(num_heads=4),
        lora=LoraSpec(rank=2, alpha=6.0),
        audio_width=96,
        audio_resampling="average",
    )
    return with_trained_values(model)


@pytest.fixture(scope="session")
def adapter(trained: MusicModel, small_parts: Path, tmp_path_factory) -> str:
    """A folder with ``zica`` and LoRA."""
    folder = tmp_path_factory.mktemp("adapter")
    trained.adapter.register_to_config(audio_encoder=str(small_parts / "audio_encoder"))
    trained.adapter.save_pretrained(folder / "zica")
    MochiPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(trained.backbone),
        transformer_lora_adapter_metadata=trained.backbone.peft_config["default"].to_dict(),
    )
    return str(folder)


@pytest.fixture(scope="session")
def wan_parts(tmp_path_factory) -> Path:
    return small_wan.write_parts(tmp_path_factory.mktemp("wan") / "small-wan")


@pytest.fixture(scope="session")
def wan_trained(wan_parts) -> MusicModel:
    """As ``trained``, of a Wan."""
    return small_wan.trained_on(wan_parts, "wan")


@pytest.fixture(scope="session")
def wan_adapter(wan_trained, tmp_path_factory) -> str:
    """The folder of an export."""
    folder = tmp_path_factory.mktemp("wan_adapter") / "wan"
    return str(small_wan.write_adapter(folder, wan_trained))


@pytest.fixture(scope="session")
def base(small_parts: Path) -> MusicInfuserPipeline:
    return quiet(MusicInfuserPipeline.from_pretrained(small_parts))


@pytest.fixture(scope="session")
def loaded(small_parts: Path, adapter: str) -> MusicInfuserPipeline:
    return quiet(MusicInfuserPipeline.from_pretrained(small_parts, adapter=adapter))


@pytest.fixture
def fresh(loaded: MusicInfuserPipeline) -> MusicInfuserPipeline:
    """One that a test may change."""
    return quiet(MusicInfuserPipeline(**copy.deepcopy(loaded.components)))


@pytest.fixture(scope="session")
def song(tmp_path_factory) -> str:
    seconds = torch.arange(2 * RATE_HZ) / RATE_HZ
    path = tmp_path_factory.mktemp("music") / "song.wav"
    phase = 2 * math.pi * (200 * seconds + 100 * seconds**2)
    write_wav(path, 0.5 * torch.sin(phase), rate_hz=RATE_HZ)
    return str(path)


def quiet(pipeline: MusicInfuserPipeline) -> MusicInfuserPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents_of(pipeline: MochiPipeline, prompt="a dancer", *arguments, **changes) -> torch.Tensor:
    settings = {
        **SIZE,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "generator": torch.Generator().manual_seed(3),
        "output_type": "latent",
    }
    return pipeline(prompt, *arguments, **(settings | changes)).frames


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()
