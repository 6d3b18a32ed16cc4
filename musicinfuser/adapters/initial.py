"""Adapters of any origin as the start of a fresh run (``model.init_adapter``)."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser.adapters.agreement import origin_notes
from musicinfuser.adapters.folder import (
    MUSIC_FILE,
    is_adapter_folder,
    is_music_folder,
    read_folder,
)
from musicinfuser.adapters.official import official_lora_spec
from musicinfuser.adapters.official_adapter import official_origin
from musicinfuser.adapters.official_keys import adapter_rules, from_official
from musicinfuser.adapters.settings import (
    AdapterFileError,
    AdapterSettings,
    comparable,
    read_checkpoint,
)
from musicinfuser.errors import UserError, looked_for
from musicinfuser.networks.lora import is_lora_name
from musicinfuser.networks.music_mochi import MusicMochi
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZeroInitCrossAttention
from musicinfuser.setting_differences import differences

_AUTHORS_HEADS = 8


class AdapterError(UserError):
    """An adapter cannot be read, or is not one of this model."""


def load_adapter(
    path: str | Path, model: MusicMochi, settings: dict[str, Any], origin: Origin | None = None
) -> list[str]:
    """Put an adapter's weights into a model, all of them or none.

    Args:
        path: As in `read_adapter`.
        model: Names and shapes of its adapters must be the file's.
        settings: As in `read_adapter`.
        origin: What the model is to hear and which frozen weights it has; an adapter that was
            trained to hear something else is refused. None asks nothing.

    Returns:
        Sentences on what differs from its training and is not refused.

    Raises:
        AdapterError: The file is not there, not an adapter, or of another model; says which.
    """
    tensors, trained = _read(Path(path), model, settings)
    notes: list[str] = []
    if origin is not None and model.layers:
        where = f"model.init_adapter: {path}"
        notes = origin_notes(trained, origin, path=where, refuse=AdapterError)
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tied = _tied_names(model, own)
    for alias, name in tied.items():
        tensor = tensors.pop(alias, None)
        if tensor is not None and not torch.equal(tensor, tensors.get(name, tensor)):
            raise AdapterError(
                f"model.init_adapter: {path} holds different tensors as {alias} and {name}, which "
                "are one in this model; set lora.share_qkv_a to false."
            )
    if tensors.keys() != own.keys():
        missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
        parts = [f"{name} is not in the file" for name in _first(missing)]
        parts += [f"{name} is not in the model" for name in _first(unknown)]
        raise AdapterError(
            f"model.init_adapter: {path} is an adapter of another model: {len(missing)} tensors "
            f"are missing and {len(unknown)} unknown ({'; '.join(parts)})."
        )
    reshaped = [name for name, p in own.items() if tensors[name].shape != p.shape]
    if reshaped:
        name = min(reshaped)
        raise AdapterError(
            f"model.init_adapter: {path} is an adapter of another model: {len(reshaped)} tensors "
            f"have another shape, e.g. {name} {tuple(tensors[name].shape)} in the file, "
            f"{tuple(own[name].shape)} in the model."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return notes


def read_adapter(
    path: str | Path, model: MusicMochi, settings: dict[str, Any]
) -> dict[str, Tensor]:
    """An adapter's tensors by the names they have in `MusicMochi`.

    Args:
        path: A checkpoint of a run (its average, where it kept one: that is what the run sampled
            and exported), the authors' ``musicinfuser.safetensors``, a safetensors file with the
            names of `MusicMochi`, a folder with one such file, or the folder of an export.
        model: Gives depth, layers and heads, which the authors' file does not hold.
        settings: What a checkpoint must have been trained with, `model_settings` of the module.

    Raises:
        AdapterError: Nothing there, nothing known, or trained with other settings.
    """
    return _read(Path(path), model, settings)[0]


def _read(
    path: Path, model: MusicMochi, settings: dict[str, Any]
) -> tuple[dict[str, Tensor], Origin]:
    """As `read_adapter`, and what the adapter was trained with."""
    if is_adapter_folder(path):
        return _from_folder(path, settings)
    path = _file(path)
    if path.name == MUSIC_FILE and is_music_folder(path.parent):
        return _from_folder(path.parent, settings)
    if path.suffix != ".safetensors":
        return _from_checkpoint(path, settings)
    try:
        tensors = load_file(path)
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"model.init_adapter: {path} cannot be read ({error}).") from error
    if any(_is_ours(name) for name in tensors):
        return tensors, Origin.assumed(path, audio_width=settings.get("audio_width"))
    if any(name.startswith("audio_projection.") for name in tensors):
        return _from_official(tensors, metadata, path, model)
    raise AdapterError(
        f"model.init_adapter: {path} is no adapter: it has neither the names of the authors' file "
        f"nor this program's, but e.g. {min(tensors, default='none')!r}."
    )


def _file(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise AdapterError(
                f"model.init_adapter: the folder {path} holds {len(found)} safetensors files; give "
                "the adapter's file."
            )
        return found[0]
    if not path.is_file():
        raise AdapterError(
            f"model.init_adapter: {path} does not exist"
            f"{looked_for(path)}; a run that is resumed needs none (null)."
        )
    return path


def _from_checkpoint(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Tensor], Origin]:
    try:
        stored, tensors, origin = read_checkpoint(path)
    except AdapterFileError as error:
        raise AdapterError(f"model.init_adapter: {error}") from error
    different = differences({"model": settings}, {"model": stored})
    if different:
        raise AdapterError(
            f"model.init_adapter: {path} was trained with other settings ({'; '.join(different)})."
        )
    return tensors, origin


def _from_folder(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Tensor], Origin]:
    try:
        adapter = read_folder(path)
    except AdapterFileError as error:
        raise AdapterError(f"model.init_adapter: {error}") from error
    mine = AdapterSettings.from_model_settings(settings)
    if is_music_folder(path):
        mine = replace(mine, lora=None)  # of which ``zica`` says nothing
    different = differences(comparable(mine), comparable(adapter.settings), where="folder")
    if different:
        raise AdapterError(
            f"model.init_adapter: {path} was trained with other settings ({'; '.join(different)})."
        )
    assert adapter.origin is not None
    return adapter.tensors, adapter.origin


def _from_official(
    tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, model: MusicMochi
) -> tuple[dict[str, Tensor], Origin]:
    if model.lora is None or "kwargs" not in metadata:
        where = "the model has no LoRA" if model.lora is None else "the file does not name its own"
        raise AdapterError(f"model.init_adapter: {path} needs LoRA settings to agree; {where}.")
    adapters = [a for a in model.zica.values() if isinstance(a, ZeroInitCrossAttention)]
    mine = {
        "lora.rank": model.lora.rank,
        "lora.alpha": float(model.lora.alpha),
        "zica.num_heads": adapters[0].num_heads if adapters else None,
        "layers": list(model.layers),
    }
    try:
        lora, has_own_a = official_lora_spec(
            json.loads(metadata["kwargs"]), share_qkv_a=model.lora.share_qkv_a
        )
        theirs = {
            "lora.rank": lora.rank,
            "lora.alpha": float(lora.alpha),
            "zica.num_heads": json.loads(metadata.get("audio_heads", str(_AUTHORS_HEADS))),
            # The authors' file does not say; its number of blocks is compared below.
            "layers": json.loads(metadata.get("audio_cross_attn_layers", str(mine["layers"]))),
        }
        different = differences(mine, theirs, where="file")
        if different:
            raise UserError(f"other settings ({'; '.join(different)}).")
        depth = len(model.backbone.transformer_blocks)
        converted = from_official(tensors, adapter_rules(depth, model.layers), has_own_a=has_own_a)
        return converted, official_origin(metadata, tensors)
    except (UserError, json.JSONDecodeError, KeyError) as error:
        raise AdapterError(
            f"model.init_adapter: {path} is an adapter of another model: {error}"
        ) from error


def _is_ours(name: str) -> bool:
    return name.startswith(("zica.", "audio_projector.")) or is_lora_name(name)


def _tied_names(model: MusicMochi, own: dict[str, torch.nn.Parameter]) -> dict[str, str]:
    """Further names of shared parameters, and the one each is known by."""
    known = {id(p): name for name, p in own.items()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: known[id(p)] for name, p in every if id(p) in known and name not in own}


def _first(names: Iterable[str]) -> list[str]:
    return sorted(names)[:1]
