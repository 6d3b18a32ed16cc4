"""The nodes in ComfyUI's own classes, where a checkout of it is at hand."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musicinfuser.adapters.official_keys import backbone_rules, to_official
from musicinfuser.networks.music_model import MusicModel
from tests.integrations.conftest import CHANNELS, NUM_LATENT

FOLDER = os.environ.get("COMFYUI_FOLDER")
pytestmark = pytest.mark.skipif(
    FOLDER is None,
    reason="COMFYUI_FOLDER names no checkout of ComfyUI, whose code was found in no registry",
)
# Published names of Wan's weights, and diffusers'.
WAN = {
    "patch_embedding": "patch_embedding",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "head.head": "proj_out",
}
WAN_BLOCK = {
    f"{theirs}.{letter}": f"{ours}.{name}"
    for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
    for letter, name in (
        ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"), ("norm_q", "norm_q"),
        ("norm_k", "norm_k"),
    )
} | {"norm3": "norm2", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}  # fmt: skip


@pytest.fixture(scope="module")
def comfy() -> Any:
    """The package, told that there is only a CPU."""
    sys.path.insert(0, str(Path(FOLDER)))
    try:
        importlib.import_module("comfy.cli_args").args.cpu = True
        for name in ("model_base", "model_patcher", "supported_models", "sd"):
            importlib.import_module(f"comfy.{name}")
    finally:
        sys.path.remove(str(Path(FOLDER)))
    return sys.modules["comfy"]


def sizes_of(config: Any, family: str) -> dict[str, Any]:
    """By ComfyUI's names; of Mochi's feed-forward layers it takes the published size only."""
    heads = config.num_attention_heads
    width = heads * config.attention_head_dim
    if family == "mochi":
        return {
            "in_channels": config.in_channels, "hidden_size_x": width, "num_heads": heads,
            "hidden_size_y": config.pooled_projection_dim, "depth": config.num_layers,
            "mlp_ratio_x": 8 * 1536 / width, "use_t5": True, "t5_feat_dim": config.text_embed_dim,
            "learn_sigma": False, "qk_norm": True, "qkv_bias": False, "timestep_scale": 1000.0,
        }  # fmt: skip
    return {
        "in_dim": config.in_channels, "out_dim": config.out_channels, "dim": width,
        "ffn_dim": config.ffn_dim, "freq_dim": config.freq_dim, "text_dim": config.text_dim,
        "num_heads": heads, "num_layers": config.num_layers,
    }  # fmt: skip


def loaded(comfy: Any, backbone: Any, family: str) -> Any:
    """ComfyUI's MODEL with the weights of diffusers' transformer."""
    config, kinds = backbone.config, comfy.supported_models
    kind = kinds.GenmoMochi if family == "mochi" else kinds.WAN21_T2V
    sizes = sizes_of(config, family)
    settings = kind({**kind.unet_config, **sizes})
    settings.set_inference_dtype(torch.float32, None)
    base = settings.get_model({}, "")
    weights = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    if family != "mochi":
        weights = published_wan(weights, config.num_layers)
    else:
        weights = to_official(weights, list(backbone_rules(config.num_layers)))
        resize_feed_forwards(base.diffusion_model, weights)
    base.diffusion_model.load_state_dict(weights, strict=True)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=device, offload_device=device)


def published_wan(ours: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    names = {"head.modulation": "scale_shift_table"}
    layers = dict(WAN)
    for i in range(depth):
        names[f"blocks.{i}.modulation"] = f"blocks.{i}.scale_shift_table"
        layers |= {f"blocks.{i}.{a}": f"blocks.{i}.{b}" for a, b in WAN_BLOCK.items()}
    for theirs, own in layers.items():
        names |= {
            f"{theirs}.{part}": f"{own}.{part}"
            for part in ("weight", "bias")
            if f"{own}.{part}" in ours
        }
    assert set(names.values()) == set(ours)
    return {theirs: ours[own] for theirs, own in names.items()}


def resize_feed_forwards(network: Any, weights: dict[str, Tensor]) -> None:
    for i, block in enumerate(network.blocks):
        for name in ("mlp_x", "mlp_y"):
            for layer in ("w1", "w2"):
                weight = weights.get(f"blocks.{i}.{name}.{layer}.weight")
                if weight is not None:
                    getattr(getattr(block, name), layer).weight = torch.nn.Parameter(weight)


def denoised(model: Any, family: str, clip: Any, latents: Tensor, sigma: Tensor) -> Tensor:
    """As ComfyUI's samplers call a model for each prompt of a batch."""
    options = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
    for each in (model, *model.get_additional_models()):
        each.patch_model(torch.device("cpu"))
    found = []
    for i, length in enumerate(clip.text_lengths):
        if family != "mochi":
            text, given = torch.zeros(1, 512, clip.text.shape[-1]), {}
            text[0, :length] = clip.text[i, :length]
        else:
            text, mask = clip.text[i : i + 1], clip.text_mask[i : i + 1]
            given = {"attention_mask": mask, "num_tokens": length}
        found.append(
            model.model.apply_model(
                latents[i : i + 1],
                sigma[i : i + 1],
                c_crossattn=text,
                transformer_options=dict(options),
                **given,
            )  # fmt: skip
        )
    model.unpatch_model(torch.device("cpu"))
    return torch.cat(found)


@pytest.mark.parametrize("family", CHANNELS)
def test_it_is_our_model(family, comfy, nodes, base, make_adapter, clip, song) -> None:
    """With music, with LoRA alone, at another strength, and without either the bare model."""
    given = make_adapter(family)
    bare = loaded(comfy, base(family), family)
    stream = torch.Generator().manual_seed(1)
    latents = torch.randn(2, CHANNELS[family], NUM_LATENT, 4, 6, generator=stream)
    sigma = torch.tensor([0.93, 0.31])
    with torch.inference_mode():  # as ComfyUI runs nodes
        (adapter,) = nodes.LoadMusicAdapter().load(given.folder, given.encoder)
        features = adapter.music(song, NUM_LATENT, 0.25)(0, NUM_LATENT)

    @torch.inference_mode()
    def theirs(music: float, lora: float, *, audio: Any = song) -> Tensor:
        model, fps = nodes.ApplyMusicAdapter().apply(
            bare, adapter, {"samples": latents}, 0.25, music, lora, audio=audio
        )
        assert fps == {"mochi": 30, "wan": 16, "wan_5b": 24}[family]
        return denoised(model, family, clip, latents, sigma)

    @torch.no_grad()
    def ours(model: MusicModel, music: float, lora: float) -> Tensor:
        velocity = model(
            latents, clip.text, model.timestep(sigma), clip.text_mask,
            features.expand(2, -1, -1) if music else None,
            audio_weight=torch.full((2,), music), lora_scale=lora,
        )  # fmt: skip
        return latents + sigma[:, None, None, None, None] * velocity

    found = {}
    for music, lora in ((1.0, 1.0), (1.0, 0.0), (0.5, 0.7), (0.0, 1.0), (0.0, 0.0)):
        found[music, lora] = theirs(music, lora)
        expected = ours(given.model, music, lora)
        torch.testing.assert_close(found[music, lora], expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        untouched = denoised(bare, family, clip, latents, sigma)
    assert torch.equal(found[0.0, 0.0], untouched)
    assert torch.equal(theirs(1.0, 1.0, audio=None), found[0.0, 1.0])
    for music, lora in ((1.0, 0.0), (0.0, 1.0)):
        assert (found[music, lora] - untouched).abs().max() > 0.01
