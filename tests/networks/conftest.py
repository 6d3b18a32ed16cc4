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


def published_shapes(
    *,
    depth: int = 48,
    num_heads: int = 24,
    head_width: int = 128,
    text_width: int = 1536,
    t5_width: int = 4096,
    time_width: int = 256,
    channels: int = 12,
    patch: int = 2,
) -> dict[str, tuple[int, ...]]:
    """Every parameter of Mochi's transformer by rule, at the published sizes by default.

    AsymmDiT: a wide stream for video and a narrow one for text, with joint attention at the
    video's width, SwiGLU feed-forwards of 8/3 the width, and modulation from the pooled caption
    and the time. The last block drops the text stream after attention.
    """
    width = num_heads * head_width
    shapes = {"pos_frequencies": (3, num_heads, head_width // 2)}

    def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    shapes["patch_embed.proj.weight"] = (width, channels, patch, patch)
    shapes["patch_embed.proj.bias"] = (width,)
    linear("time_embed.timestep_embedder.linear_1", width, time_width)
    linear("time_embed.timestep_embedder.linear_2", width, width)
    linear("time_embed.pooler.to_kv", 2 * t5_width, t5_width)
    linear("time_embed.pooler.to_q", t5_width, t5_width)
    linear("time_embed.pooler.to_out", width, t5_width)
    linear("time_embed.caption_proj", text_width, t5_width)
    linear("norm_out.linear", 2 * width, width)
    linear("proj_out", patch * patch * channels, width)
    for i in range(depth):
        is_last = i == depth - 1
        block, attention = f"transformer_blocks.{i}", f"transformer_blocks.{i}.attn1"
        linear(f"{block}.norm1.linear", 4 * width, width)
        if is_last:
            linear(f"{block}.norm1_context.linear_1", text_width, width)
        else:
            linear(f"{block}.norm1_context.linear", 4 * text_width, width)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[f"{attention}.{norm}.weight"] = (head_width,)
        for name in ("to_q", "to_k", "to_v"):
            linear(f"{attention}.{name}", width, width, bias=False)
        for name in ("add_q_proj", "add_k_proj", "add_v_proj"):
            linear(f"{attention}.{name}", width, text_width, bias=False)
        linear(f"{attention}.to_out.0", width, width)
        streams = {"ff": width} if is_last else {"ff": width, "ff_context": text_width}
        if not is_last:
            linear(f"{attention}.to_add_out", text_width, width)
        for name, size in streams.items():
            linear(f"{block}.{name}.net.0.proj", 2 * (8 * size // 3), size, bias=False)
            linear(f"{block}.{name}.net.2", size, 8 * size // 3, bias=False)
    return shapes


def lora_modules(depth: int, *, streams: str) -> list[str]:
    """Names of the attention projections that LoRA adapts, within the backbone."""
    names = []
    for i in range(depth):
        own = ["to_q", "to_k", "to_v", "to_out.0"]
        if streams == "both":
            own += ["add_q_proj", "add_k_proj", "add_v_proj"]
            if i < depth - 1:
                own += ["to_add_out"]
        names += [f"transformer_blocks.{i}.attn1.{name}" for name in own]
    return names


@pytest.fixture(scope="session")
def mochi_shapes() -> Callable[..., dict[str, tuple[int, ...]]]:
    return published_shapes


@pytest.fixture(scope="session")
def adapted_modules() -> Callable[..., list[str]]:
    return lora_modules
