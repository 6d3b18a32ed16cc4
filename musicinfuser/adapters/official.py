"""The authors' files: a model of theirs is read, adapters are written in their format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import MochiTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser.adapters.official_keys import (
    adapter_rules,
    backbone_rules,
    from_official,
    to_official,
)
from musicinfuser.errors import UserError, looked_for
from musicinfuser.memory.settings import GradientCheckpointing, MemorySettings
from musicinfuser.networks.layer_selection import ADAPTABLE_LAYERS_OF_MOCHI
from musicinfuser.networks.lora import LoraSpec, is_lora_name
from musicinfuser.networks.music_mochi import MusicMochi
from musicinfuser.networks.zica import FeatureAddition, ZeroInitCrossAttention, ZicaSpec
from musicinfuser.pretrained_sources import MissingWeightsError
from musicinfuser.safetensors_files import save_tensors


def load_official(
    dit: str | Path,
    adapter: str | Path,
    arch: str | Path | dict[str, Any],
    *,
    gradient_checkpointing: GradientCheckpointing = "none",
    share_qkv_a: bool = False,
) -> MusicMochi:
    """MusicMochi from the authors' backbone and adapter files, in fp32.

    Args:
        dit: Genmo's ``dit.safetensors``.
        adapter: The authors' ``musicinfuser.safetensors``; LoRA settings are read from its
            metadata. Their file does not hold the layer list; ours does.
        arch: Path or dict with ``depth``, ``num_heads``, ``hidden_size_x``, ``hidden_size_y``,
            ``patch_size``, ``in_channels``, ``t5_feat_dim``, ``t5_token_length``, ``audio_heads``
            and ``audio_cross_attn_layers`` (when absent the adapter file's, else the authors' 16
            of 48).
        gradient_checkpointing: As in `MemorySettings`.
        share_qkv_a: Keep the authors' one A for q, k and v when training goes on.

    Raises:
        MissingWeightsError: A file does not exist.
        ValueError: Tensors are missing or unknown, the metadata lacks the LoRA settings, or
            ``arch`` names other blocks than the adapter file.
    """
    for path in (dit, adapter):
        if not Path(path).is_file():
            raise MissingWeightsError(
                f"{path} does not exist{looked_for(path)}; docs/adapters_and_formats.md says where "
                "to get it."
            )
    sizes = arch if isinstance(arch, dict) else json.loads(Path(arch).read_text())
    depth = sizes["depth"]
    with torch.device("meta"):
        backbone = MochiTransformer3DModel(
            patch_size=sizes["patch_size"],
            num_attention_heads=sizes["num_heads"],
            attention_head_dim=sizes["hidden_size_x"] // sizes["num_heads"],
            num_layers=depth,
            pooled_projection_dim=sizes["hidden_size_y"],
            in_channels=sizes["in_channels"],
            text_embed_dim=sizes["t5_feat_dim"],
            max_sequence_length=sizes["t5_token_length"],
        )
    weights = from_official(load_file(dit), backbone_rules(depth))
    backbone.load_state_dict({n: w.float() for n, w in weights.items()}, assign=True)
    tensors = load_file(adapter)
    with safe_open(str(adapter), "pt") as file:
        metadata = file.metadata() or {}
    if "kwargs" not in metadata:
        raise UserError(f"{adapter} has no LoRA settings in its metadata (key `kwargs`).")
    layers = _layers(sizes, metadata, adapter)
    heads = json.loads(metadata.get("audio_heads", str(sizes["audio_heads"])))
    if heads != sizes["audio_heads"]:
        raise UserError(
            f"{adapter} was trained with {heads} audio heads, but the architecture names "
            f"{sizes['audio_heads']}."
        )
    lora, has_own_a = official_lora_spec(json.loads(metadata["kwargs"]), share_qkv_a=share_qkv_a)
    model = MusicMochi(
        backbone,
        layers=list(layers),
        zica=ZicaSpec(num_heads=sizes["audio_heads"]),
        lora=lora,
        audio_width=tensors["audio_projection.projection.0.weight"].shape[1],
        memory=MemorySettings(gradient_checkpointing),
    )
    converted = from_official(tensors, adapter_rules(depth, layers), has_own_a=has_own_a)
    state = model.state_dict()
    adapter_names = {n for n in state if not n.startswith("backbone.") or is_lora_name(n)}
    assert adapter_names == set(converted)
    model.load_state_dict(converted, strict=False)
    return model


def _layers(arch: dict[str, Any], metadata: dict[str, str], adapter: str | Path) -> tuple[int, ...]:
    """The blocks that carry audio, from the architecture, the file, or the authors' list."""
    in_file = json.loads(metadata.get("audio_cross_attn_layers", "null"))
    layers = arch.get("audio_cross_attn_layers", in_file or ADAPTABLE_LAYERS_OF_MOCHI)
    if in_file is not None and list(layers) != in_file:
        raise UserError(
            f"{adapter} was trained with audio after blocks {in_file}, but the architecture names "
            f"{list(layers)}."
        )
    return tuple(layers)


def official_lora_spec(kwargs: dict[str, Any], *, share_qkv_a: bool) -> tuple[LoraSpec, bool]:
    """The LoRA settings in a file, and whether q, k and v hold an A matrix each."""
    rank, alpha = kwargs["out_proj_lora_rank"], kwargs["out_proj_lora_alpha"]
    qkv = (kwargs["qkv_proj_lora_rank"], kwargs["qkv_proj_lora_alpha"])
    has_own_a = qkv == (3 * rank, 3 * alpha)
    if not has_own_a and qkv != (rank, alpha):
        raise UserError(
            f"the adapter has LoRA rank {qkv[0]} on qkv but {rank} on the output projections; "
            "different ranks are not supported."
        )
    if has_own_a and share_qkv_a:
        raise UserError("this adapter holds an A matrix each for q, k and v; set share_qkv_a off.")
    return LoraSpec(rank=rank, alpha=alpha, streams="both", share_qkv_a=share_qkv_a), has_own_a


def save_official(model: MusicMochi, path: str | Path) -> None:
    """Write the adapters in the authors' format, whole or not at all.

    While the A matrices of q, k and v are equal, each becomes their one shared A. Once they have
    diverged, qkv is written exactly as rank 3r and alpha 3 * alpha: A stacked, B block-diagonal.

    Raises:
        ValueError: The model has parts their format cannot hold.
    """
    lora, depth = model.lora, len(model.backbone.transformer_blocks)
    if lora is None or lora.streams != "both" or not model.layers:
        raise UserError(
            "the authors' format needs ZICA and LoRA on both streams (lora.streams: both)."
        )
    for adapter in model.zica.values():
        assert isinstance(adapter, ZeroInitCrossAttention | FeatureAddition)
        if isinstance(adapter, FeatureAddition):
            raise UserError("the authors' format knows cross-attention only (zica.form).")
        if adapter.positions != "none":
            raise UserError("the authors' format knows no positions (zica.positions: none).")
        if adapter.logit_scale != (adapter.to_q.out_features // adapter.num_heads) ** -0.5:
            raise UserError("the authors' format knows logits scaled per head only (zica.scale).")
    # All names, tied ones included: state_dict lists a shared A under each of its names.
    tensors = {
        name: tensor.detach().cpu()
        for name, tensor in model.state_dict().items()
        if not name.startswith("backbone.") or is_lora_name(name)
    }
    [num_heads] = {adapter.num_heads for adapter in model.zica.values()}  # type: ignore[union-attr]
    assert isinstance(num_heads, int)
    write_official(tensors, path, lora=lora, depth=depth, layers=model.layers, num_heads=num_heads)


def write_official(
    tensors: dict[str, Tensor],
    path: str | Path,
    *,
    lora: LoraSpec,
    depth: int,
    layers: tuple[int, ...],
    num_heads: int,
    more_metadata: Mapping[str, str] = {},  # noqa: B006 - only read
) -> None:
    """Write adapters in the authors' format, whole or not at all; A matrices as `save_official`.

    Args:
        tensors: Adapters by the names of `MusicMochi`, tied ones under each of their names.
        path: The file.
        lora: Its rank and alpha.
        depth: Blocks of the backbone.
        layers: Blocks followed by ZICA.
        num_heads: Of ZICA.
        more_metadata: Further entries of the file's header, which their code passes over.

    Raises:
        ValueError: A tensor of their format is missing; names it.
    """
    rules = list(adapter_rules(depth, layers))
    unknown = next((n for rule in rules for n in rule.ours if n not in tensors), None)
    if unknown is not None:
        raise UserError(f"the authors' format needs {unknown}, which this model does not have.")
    has_diverged = any(
        not torch.equal(tensors[rule.ours[0]], tensors[name])
        for rule in rules
        if rule.kind == "share"
        for name in rule.ours[1:]
    )
    factor = 3 if has_diverged else 1
    official = {}
    for rule in rules:
        pieces = [tensors[name] for name in rule.ours]
        if has_diverged and rule.kind == "share":
            official[rule.official] = torch.cat(pieces)
        elif has_diverged and rule.kind == "stack":
            official[rule.official] = torch.block_diag(*pieces)
        else:
            official |= to_official(tensors, iter([rule]))
    alpha = int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha
    kwargs = {
        "qkv_proj_lora_rank": factor * lora.rank,
        "qkv_proj_lora_alpha": factor * alpha,
        "qkv_proj_lora_dropout": 0.0,
        "out_proj_lora_rank": lora.rank,
        "out_proj_lora_alpha": alpha,
        "out_proj_lora_dropout": 0.0,
    }
    # Their file leaves out which blocks the adapters belong to and the number of heads, which
    # their code fixes at 8; a reader that ignores the two loses nothing.
    metadata = {
        "kwargs": json.dumps(kwargs),
        "audio_cross_attn_layers": json.dumps(layers),
        "audio_heads": json.dumps(num_heads),
        **more_metadata,
    }
    save_tensors(official, path, metadata=metadata)
