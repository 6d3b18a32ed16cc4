"""The frozen text-to-video transformer: diffusers' Mochi, from weights or from a config."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import MochiTransformer3DModel

from musicinfuser.errors import UserError, looked_for
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.keyed_random import generator
from musicinfuser.pretrained_sources import MissingWeightsError, find_local, load_pretrained
from musicinfuser.setting_checks import check_file

MOCHI_HUB_ID = "genmo/mochi-1-preview"
# The published architecture of genmo/mochi-1-preview.
MOCHI_CONFIG: dict[str, Any] = {
    "patch_size": 2,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "num_layers": 48,
    "pooled_projection_dim": 1536,
    "in_channels": 12,
    "qk_norm": "rms_norm",
    "text_embed_dim": 4096,
    "time_embed_dim": 256,
    "activation_fn": "swiglu",
    "max_sequence_length": 256,
}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class BackboneSpec:
    """Where the frozen transformer comes from. Give ``pretrained`` or ``config``."""

    pretrained: str | None = None
    """Hub id or local folder in diffusers' layout."""
    subfolder: str | None = "transformer"
    """Folder of the transformer inside ``pretrained``."""
    config: str | None = None
    """A ``config.json`` of ``MochiTransformer3DModel``: random weights, for tests and timing."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type the frozen weights are held in."""
    seed: int = 0
    """Seed of random weights; no effect with ``pretrained``."""

    def __post_init__(self) -> None:
        """Exactly one source."""
        if (self.pretrained is None) == (self.config is None):
            raise UserError(
                "model.backbone needs exactly one of `pretrained` (hub id or folder) and `config` "
                "(a config.json, random weights)."
            )

    def fingerprint(self) -> str | None:
        """A hash of the weights; None of random ones and of those that are not on this machine."""
        folder = find_local(self.pretrained, self.subfolder) if self.pretrained else None
        return fingerprint_folder(folder) if folder else None


def build_backbone(spec: BackboneSpec) -> MochiTransformer3DModel:
    """The frozen transformer, without gradient anywhere.

    Under ``torch.device("meta")`` only names, shapes and types are made, without reading weights.

    Raises:
        MissingWeightsError: ``spec.pretrained`` or ``spec.config`` cannot be found.
    """
    dtype, is_meta = DTYPES[spec.dtype], torch.get_default_device().type == "meta"
    if spec.config is not None or is_meta:
        # Without the weights torch would draw: each is written once, by us.
        with torch.device("meta"):
            backbone = MochiTransformer3DModel.from_config(backbone_config(spec)).to(dtype)
        if not is_meta:
            backbone.to_empty(device=torch.get_default_device())
            initialise_randomly(backbone, seed=spec.seed)
    else:
        assert spec.pretrained is not None
        backbone = load_pretrained(
            MochiTransformer3DModel, spec.pretrained, spec.subfolder, dtype=dtype
        )
    return backbone.requires_grad_(False)


def backbone_config(spec: BackboneSpec) -> dict[str, Any]:
    """The architecture of ``spec`` without its weights."""
    if spec.config is not None:
        check_file("model.backbone.config", spec.config, error=MissingWeightsError)
        return json.loads(Path(spec.config).read_text())
    assert spec.pretrained is not None
    path = Path(spec.pretrained, spec.subfolder or "", "config.json")
    if path.is_file():
        return json.loads(path.read_text())
    if spec.pretrained == MOCHI_HUB_ID:
        return MOCHI_CONFIG
    raise MissingWeightsError(
        f"{path} does not exist{looked_for(path)}, so the architecture is unknown."
    )


def initialise_randomly(backbone: MochiTransformer3DModel, *, seed: int) -> None:
    """Give a backbone weights that depend on nothing but ``seed`` and the parameter's name.

    Matrices get the spread of torch's linear layers, biases a small one, weights of norms are one;
    ``pos_frequencies``, zeros in diffusers, become random directions that tell positions apart.
    """
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            stream = generator(seed, name, "backbone init")
            if name == "pos_frequencies":
                values = _random_frequencies(parameter.shape, stream)
            elif parameter.dim() > 1:
                fan_in = parameter[0].numel()
                values = torch.randn(parameter.shape, generator=stream) * (3 * fan_in) ** -0.5
            elif name.endswith(".bias"):
                values = torch.randn(parameter.shape, generator=stream) * 0.02
            else:
                values = torch.ones(parameter.shape)
            parameter.copy_(values)


def _random_frequencies(shape: torch.Size, stream: torch.Generator) -> torch.Tensor:
    """Rotations ``(3, heads, channels)`` in radians per unit of time, height and width.

    Random directions, 0.08 to 2 radians from one latent frame to the next; Mochi's height and width
    run over a range of about 192 whatever the clip's size, so they turn 48 times slower.
    """
    directions = torch.randn(shape, generator=stream)
    directions = directions / directions.norm(dim=0, keepdim=True)
    magnitudes = 0.08 * (2 / 0.08) ** torch.rand(shape[1:], generator=stream)
    return directions * magnitudes / torch.tensor([1.0, 48.0, 48.0])[:, None, None]
