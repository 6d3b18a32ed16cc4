"""Random weights and random inputs, at full size or a small one.

Nothing is zero that training would move: products with zeros run faster than the real thing.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.profiles import adapted, audio_width, backbone, family_of
from musicinfuser.clip_size import MOCHI, LatentGeometry, latent_shape
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.media.audio import clip_audio_seconds
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.work import Work

SPREAD = 0.02
TOKENS_PER_SECOND = 50


def random_model(
    config: Mapping[str, Any], device: torch.device, *, num_layers: int | None = None,
    size: str = "full", **changes: Any,
) -> MusicModel:  # fmt: skip
    """The adapted model of a profile on ``device``, with random weights.

    All weights pass through the device, which must hold the backbone; a profile that keeps some in
    the host's memory moves them there when it is built.

    Args:
        config: As `read_profile` gives it.
        device: Where it runs, and where weights are drawn; streams differ between devices.
        num_layers: Blocks; by default all.
        size: ``full`` or ``small``.
        changes: Options of `MusicModel` and `MemorySettings` that replace the profile's.
    """
    if config["model"]["init_args"]["backbone"].get("quantize"):
        raise UserError(
            "no random weights are quantised; give another profile than int8, fp8, nf4."
        )
    stream = generator(0, "weights", "random weights", device=device)
    with torch.device("meta"):
        base = backbone(config, num_layers=num_layers, size=size)
    give_weights(base.to_empty(device=device), stream)
    family_of(config).restore_buffers(base)
    with torch.device("meta"):
        model = adapted(base, config, **changes)
    for part in (model.zica, model.audio_projector, *model.kind.blocks):
        if part is not None:
            # Only adapters are on the meta device.
            part._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t)
    give_weights(model, stream, trained_only=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return model


def give_weights(module: nn.Module, stream: torch.Generator, *, trained_only: bool = False) -> None:
    """Fill parameters with N(0, 0.02^2), those of norms with 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if trained_only and not parameter.requires_grad:
                continue
            if parameter.dim() == 1 and name.endswith(".weight"):
                parameter.fill_(1.0)
                continue
            values = torch.empty(parameter.shape, dtype=parameter.dtype, device=stream.device)
            parameter.copy_(values.normal_(std=SPREAD, generator=stream))


@dataclass(frozen=True)
class RandomClip:
    """What a batch of one encoded clip holds, on the CPU."""

    latent_mean: Tensor
    latent_logvar: Tensor
    """Both ``(1, C, T, H, W)`` bf16."""
    text: Tensor
    """``(1, L, text width)`` bf16."""
    audio: Tensor
    """``(1, S, audio width)`` fp32."""

    def to(self, device: torch.device) -> "RandomClip":
        """A copy on ``device``; on a GPU nothing waits for it."""
        return RandomClip(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))

    def pinned(self) -> "RandomClip":
        """A copy in pinned memory."""
        return RandomClip(*(tensor.pin_memory() for tensor in vars(self).values()))


def random_clip(
    num_frames: int, height: int, width: int, *, text_tokens: int, text_width: int,
    audio_width: int, seed: int = 0, geometry: LatentGeometry = MOCHI,
) -> RandomClip:  # fmt: skip
    """A clip of noise: frames as a family takes them, sides in pixels, widths in channels."""
    shape = (1, *latent_shape(num_frames, height, width, geometry=geometry))
    audio_tokens = int(clip_audio_seconds(num_frames, fps=geometry.fps) * TOKENS_PER_SECOND) - 1
    stream = generator(seed, "clip", "random clip")

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=stream)

    return RandomClip(
        latent_mean=draw(*shape).bfloat16(),
        latent_logvar=draw(*shape).bfloat16() - 4,
        text=draw(1, text_tokens, text_width).bfloat16(),
        audio=draw(1, audio_tokens, audio_width),
    )


def clip_for(model: MusicModel, settings: argparse.Namespace, device: torch.device) -> RandomClip:
    """A clip for a model in the host's memory, pinned for a GPU."""
    clip = random_clip(
        settings.frames, settings.height, settings.width, text_tokens=settings.text_tokens,
        text_width=model.backbone.config[model.kind.text_width_key],
        audio_width=audio_width(model), geometry=model.kind.geometry,
    )  # fmt: skip
    return clip.pinned() if device.type == "cuda" else clip


def work_for(model: MusicModel, settings: argparse.Namespace) -> Work:
    """The operations of a model on a clip of ``settings``; some families fill texts up."""
    kind = model.kind
    read = kind.usual.text_tokens if kind.text_attentions else settings.text_tokens
    return Work.of(model, settings.frames, settings.height, settings.width, text_tokens=read)
