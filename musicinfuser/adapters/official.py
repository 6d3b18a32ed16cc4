"""The authors' ``musicinfuser.safetensors``: read as an adapter or a model, and written."""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicinfuser.adapters.official_backbone import backbone_config_of
from musicinfuser.adapters.official_keys import (
    adapter_rules,
    backbone_rules,
    from_official,
    to_official,
)
from musicinfuser.adapters.settings import SETTINGS_KEY, Adapter, AdapterFileError, AdapterSettings
from musicinfuser.errors import UserError, looked_for
from musicinfuser.memory.settings import GradientCheckpointing, MemorySettings
from musicinfuser.networks.backbones import Mochi
from musicinfuser.networks.layer_selection import (
    ADAPTABLE_LAYERS_OF_MOCHI,
    DEPTH_OF_MOCHI,
    select_layers,
)
from musicinfuser.networks.lora import LoraSpec, is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.transformers_audio import WAV2VEC_HUB_ID, TransformersAudio
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.pretrained_sources import MissingWeightsError
from musicinfuser.safetensors_files import read_header, read_tensors, save_tensors
from musicinfuser.setting_differences import flatten

WAV2VEC_RATE_HZ = 50.0
"""Features per second."""
_BLOCK = re.compile(r"blocks\.(\d+)\.attn\.")
_ZICA = re.compile(r"audio_cross_attn_blocks\.(\d+)\.")


def load_official(
    dit: str | Path,
    adapter: str | Path,
    arch: str | Path | dict[str, Any],
    *,
    gradient_checkpointing: GradientCheckpointing = "none",
    share_qkv_a: bool = False,
) -> MusicModel:
    """MusicModel from the authors' backbone and adapter files, in fp32.

    Args:
        dit: Genmo's ``dit.safetensors``.
        adapter: The authors' ``musicinfuser.safetensors``; LoRA settings are read from its
            metadata. Their file does not hold the layer list; ours does.
        arch: Path or dict with ``audio_heads`` and ``audio_cross_attn_layers`` (when absent the
            adapter file's, else the authors' 16 of 48); the rest the shapes in ``dit`` say.
        gradient_checkpointing: As in `MemorySettings`.
        share_qkv_a: Keep the authors' one A for q, k and v when training goes on.

    Raises:
        MissingWeightsError: A file does not exist.
        UserError: Tensors are missing or unknown, the metadata lacks the LoRA settings, or
            ``arch`` names other blocks or heads than the adapter file.
    """
    for path in (dit, adapter):
        if not Path(path).is_file():
            raise MissingWeightsError(
                f"{path} does not exist{looked_for(path)}; docs/adapters_and_formats.md says where "
                "to get it."
            )
    sizes = arch if isinstance(arch, dict) else json.loads(Path(arch).read_text())
    config = backbone_config_of(read_header(dit), Path(dit))
    with torch.device("meta"):
        backbone = Mochi.model_class.from_config(config)
    weights = from_official(read_tensors(dit)[0], backbone_rules(config["num_layers"]))
    backbone.load_state_dict({n: w.float() for n, w in weights.items()}, assign=True)
    found = read_official_adapter(
        adapter, layers=sizes.get("audio_cross_attn_layers"), num_heads=sizes["audio_heads"],
        option="audio_cross_attn_layers",
    )  # fmt: skip
    assert found.settings.lora is not None
    if share_qkv_a and not found.settings.lora.share_qkv_a:
        raise UserError("this adapter holds an A matrix each for q, k and v; set share_qkv_a off.")
    model = MusicModel(
        backbone,
        layers=list(found.settings.layers),
        zica=found.settings.zica,
        lora=replace(found.settings.lora, share_qkv_a=share_qkv_a),
        audio_width=found.settings.audio_width,
        memory=MemorySettings(gradient_checkpointing=gradient_checkpointing),
    )
    assert found.tensors.keys() == _adapters(model).keys()
    model.load_state_dict(found.tensors, strict=False)
    return model


def save_official(model: MusicModel, path: str | Path) -> None:
    """Write a model's adapters as `write_official_adapter` does."""
    config = model.backbone.config
    stored = {
        "width": config.num_attention_heads * config.attention_head_dim,
        "num_layers": config.num_layers,
        **(model.adapter.config if model.adapter else {}),
    }
    settings = replace(AdapterSettings.from_folder(stored), lora=model.lora)
    write_official_adapter(Adapter(settings, _adapters(model)), path)


def read_official_adapter(
    path: str | Path,
    *,
    layers: Sequence[int] | None = None,
    num_heads: int | None = None,
    audio_encoder: str = WAV2VEC_HUB_ID,
    otherwise: Sequence[int] | None = None,
    option: str = "--layers",
) -> Adapter:
    """The authors' file by the names of `MusicModel`.

    Args:
        path: Their ``musicinfuser.safetensors``, of a transformer of any depth.
        layers: Blocks with audio, which their file does not hold; None takes what the file says
            where we wrote it, else the authors' 16 for 48 blocks.
        num_heads: Heads of ZICA, likewise; None takes the file's, else the authors' 8. They must be
            the file's, where that says them.
        audio_encoder: Hub id or folder of its audio encoder, where the file does not say it.
        otherwise: Blocks with audio where neither ``layers`` nor the file says them.
        option: What the user gives ``layers`` with, for the sentence.

    Raises:
        AdapterFileError: Not such a file, or it cannot say which blocks; names file and key.
        WeightsFileError: The file cannot be read.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    blocks = {int(found[1]) for name in tensors if (found := _BLOCK.match(name))}
    zica = {int(found[1]) for name in tensors if (found := _ZICA.match(name))}
    if not blocks or not zica:
        missing = "audio_cross_attn_blocks.0.to_q.weight" if blocks else "blocks.0.attn.*"
        raise AdapterFileError(
            f"{path} is no adapter of the authors: it has no {missing}, but e.g. "
            f"{min(tensors, default='nothing')}."
        )
    if "kwargs" not in metadata:
        raise AdapterFileError(f"{path} has no LoRA settings in its metadata (key `kwargs`).")
    depth = max(blocks) + 1
    in_file = json.loads(metadata.get("audio_cross_attn_layers", "null"))
    if layers is None:
        known = ADAPTABLE_LAYERS_OF_MOCHI if depth == DEPTH_OF_MOCHI else ()
        layers = in_file or (known if otherwise is None else otherwise)
    chosen = select_layers(list(layers), depth)
    if len(chosen) != len(zica) or (in_file and list(chosen) != in_file):
        raise AdapterFileError(
            f"{path} holds {len(zica)} audio blocks (audio_cross_attn_blocks.*) for a transformer "
            f"of {depth}; give their places with {option}"
            + (f", which are {in_file}." if in_file else f", {len(zica)} numbers.")
        )
    heads = json.loads(metadata.get("audio_heads", "null"))
    if None not in (heads, num_heads) and heads != num_heads:
        raise AdapterFileError(f"{path} was trained with {heads} audio heads, not {num_heads}.")
    try:
        kwargs = json.loads(metadata["kwargs"])
        rank, alpha = kwargs["out_proj_lora_rank"], kwargs["out_proj_lora_alpha"]
        qkv = (kwargs["qkv_proj_lora_rank"], kwargs["qkv_proj_lora_alpha"])
        has_own_a = qkv == (3 * rank, 3 * alpha)
        if not has_own_a and qkv != (rank, alpha):
            raise UserError(
                f"the adapter has LoRA rank {qkv[0]} on qkv but {rank} on the output projections; "
                "different ranks are not supported."
            )
        converted = from_official(tensors, adapter_rules(depth, chosen), has_own_a=has_own_a)
    except (UserError, json.JSONDecodeError, KeyError) as error:
        raise AdapterFileError(f"{path}: {error}") from error
    width, audio_width = tensors["audio_projection.projection.0.weight"].shape
    settings = AdapterSettings(
        width=width,
        num_layers=depth,
        layers=chosen,
        audio_width=audio_width,
        audio_resampling="nearest",
        zica=ZicaSpec(num_heads=num_heads or heads or 8),
        lora=LoraSpec(rank=rank, alpha=alpha, streams="both", share_qkv_a=not has_own_a),
    )
    return Adapter(settings, converted, _origin(metadata, audio_width, audio_encoder))


def _origin(metadata: dict[str, str], audio_width: int, encoder: str) -> Origin:
    """What the file says where we wrote it; else it is the authors' own.

    They use the last hidden state of wav2vec 2.0 (section 5.1; which one: their code).
    """
    if stored := Origin.from_stored(json.loads(metadata.get(SETTINGS_KEY, "{}"))):
        return stored
    theirs = TransformersAudio(encoder).identity()
    if theirs.kind is None:
        theirs = replace(theirs, kind="wav2vec2", rate_hz=WAV2VEC_RATE_HZ, width=audio_width)
    return Origin(theirs)


def write_official_adapter(adapter: Adapter, path: str | Path) -> None:
    """Write an adapter in the authors' format, whole or not at all.

    While the A matrices of q, k and v are equal, each becomes their one shared A. Once they have
    diverged, qkv is written exactly as rank 3r and alpha 3 * alpha: A stacked, B block-diagonal.

    Raises:
        AdapterFileError: It has what their format cannot hold; says what.
        UserError: A tensor of their format is missing; names it.
    """
    settings, lora = adapter.settings, adapter.settings.lora
    if settings.family != Mochi.family:
        raise AdapterFileError(
            f"the authors' format holds adapters of Mochi; this one is of {settings.family}."
        )
    if lora is None or not lora.is_authors or not settings.layers:
        raise AdapterFileError(
            "the authors' format needs ZICA, and LoRA of one rank on the attention of both streams "
            "(lora.streams: both, no other targets, ranks or dora)."
        )
    assert settings.num_layers is not None
    # The defaults of `ZicaSpec` are the authors' code.
    only = replace(
        settings, audio_resampling="nearest", zica=ZicaSpec(num_heads=settings.zica.num_heads)
    )
    if settings.audio_layers:
        raise AdapterFileError(
            "the authors' format knows one hidden state of wav2vec 2.0; this adapter mixes all "
            "layers of an encoder."
        )
    mine, theirs = flatten(settings.comparable()), flatten(only.comparable())
    for name in sorted(theirs, reverse=True):  # ZICA's first
        if mine[name] != theirs[name]:
            option = name.replace("zica.zica_", "zica.")
            raise AdapterFileError(
                f"the authors' format knows {option} {theirs[name]} only; this adapter has "
                f"{mine[name]}."
            )
    if adapter.origin and not adapter.origin.audio.is_authors:
        warnings.warn(
            f"the authors' code takes the last hidden state of a wav2vec 2.0; {path} was trained "
            f"on {adapter.origin.audio}, which only this program looks up in it.",
            stacklevel=2,
        )
    rules = list(adapter_rules(settings.num_layers, settings.layers))
    unknown = next((n for rule in rules for n in rule.ours if n not in adapter.tensors), None)
    if unknown is not None:
        raise UserError(f"the authors' format needs {unknown}, which this model does not have.")
    official = to_official(adapter.tensors, rules)
    factor = len(official["blocks.0.attn.qkv_x.lora_A"]) // lora.rank
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
        "audio_cross_attn_layers": json.dumps(settings.layers),
        "audio_heads": json.dumps(settings.zica.num_heads),
    }
    if origin := adapter.stored_origin():
        metadata[SETTINGS_KEY] = json.dumps(origin)
    save_tensors(official, path, metadata=metadata)


def _adapters(model: MusicModel) -> dict[str, Tensor]:
    """All names, tied ones included: state_dict lists a shared A under each of its names."""
    return {
        name: tensor.detach().cpu()
        for name, tensor in model.state_dict().items()
        if not name.startswith("backbone.") or is_lora_name(name)
    }
