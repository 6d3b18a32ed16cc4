"""Adapters of any origin as the start of a fresh run (``model.init_adapter``)."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicinfuser.adapters.folder import MUSIC_FILE, is_adapter_folder, is_music_folder, read_folder
from musicinfuser.adapters.official import read_official_adapter
from musicinfuser.adapters.settings import (
    AdapterFileError,
    AdapterSettings,
    read_checkpoint,
    with_younger_options,
)
from musicinfuser.errors import UserError, looked_for
from musicinfuser.networks.backbones import Mochi
from musicinfuser.networks.lora import is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.safetensors_files import read_tensors
from musicinfuser.setting_differences import differences


def load_adapter(
    path: str | Path, model: MusicModel, settings: dict[str, Any], origin: Origin | None = None
) -> list[str]:
    """Put an adapter's weights into a model, all of them or none.

    Args:
        path: A checkpoint of a run (its average, where it kept one: that is what the run sampled
            and exported), the authors' ``musicinfuser.safetensors``, a safetensors file with the
            names of `MusicModel`, a folder with one such file, or the folder of an export.
        model: Names and shapes of its adapters must be the file's.
        settings: What the adapter must have been trained with, `model_settings` of the module.
        origin: The audio features and frozen weights of the run; an adapter that was trained on
            other features is refused. None asks nothing.

    Returns:
        Sentences on what differs from its training and is not refused.

    Raises:
        AdapterFileError: The file is not there, not an adapter, or of another model; says which.
    """
    try:
        tensors, trained, fps = _read(Path(path), model, settings)
    except UserError as error:
        raise AdapterFileError(f"model.init_adapter: {error}") from error
    where = f"model.init_adapter: {path}"
    notes: list[str] = []
    if origin is not None and model.layers:
        notes = trained.notes(origin, path=where, refuse=AdapterFileError)
    if fps != (mine := settings.get("fps")):
        rates = [model.kind.geometry.fps if rate is None else rate for rate in (fps, mine)]
        notes.append(
            f"{where} learned from videos of {rates[0]:g} frames per second, but this run's have "
            f"{rates[1]:g}; for videos as it made them set data.fps and model.sampling.fps."
        )
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    known = {id(p): name for name, p in own.items()}
    for alias, parameter in model.named_parameters(remove_duplicate=False):
        name = known.get(id(parameter), alias)
        tensor = tensors.pop(alias, None) if name != alias else None
        if tensor is not None and not torch.equal(tensor, tensors.get(name, tensor)):
            raise AdapterFileError(
                f"{where} holds different tensors as {alias} and {name}, which are one in this "
                "model; set lora.share_qkv_a to false."
            )
    if tensors.keys() != own.keys():
        missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
        parts = [f"{name} is not in the file" for name in _first(missing)]
        parts += [f"{name} is not in the model" for name in _first(unknown)]
        raise AdapterFileError(
            f"{where} is an adapter of another model: {len(missing)} tensors are missing and "
            f"{len(unknown)} unknown ({'; '.join(parts)})."
        )
    reshaped = [name for name, p in own.items() if tensors[name].shape != p.shape]
    for name in _first(reshaped):
        raise AdapterFileError(
            f"{where} is an adapter of another model: {len(reshaped)} tensors have another shape, "
            f"e.g. {name} {tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in "
            "the model."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return notes


def _read(
    path: Path, model: MusicModel, settings: dict[str, Any]
) -> tuple[dict[str, Tensor], Origin, float | None]:
    """An adapter's tensors by the names of `MusicModel`, and what it was trained with.

    The last is the rate of its videos, as settings have it; files that do not say it have this
    model's.
    """
    own_fps = settings.get("fps")
    if path.name == MUSIC_FILE and is_music_folder(path.parent):
        path = path.parent
    if is_adapter_folder(path) or is_music_folder(path):
        return _from_folder(path, settings)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise AdapterFileError(
                f"the folder {path} holds {len(found)} safetensors files; give the adapter's file."
            )
        [path] = found
    if not path.is_file():
        raise AdapterFileError(
            f"{path} does not exist{looked_for(path)}; a run that is resumed needs none (null)."
        )
    if path.suffix != ".safetensors":
        stored, tensors, origin = read_checkpoint(path)
        # A fresh run may be of another frame rate.
        mine, theirs = (
            {**s, "fps": None} for s in (with_younger_options(settings), stored["model"])
        )
        _check({"model": mine}, {"model": theirs}, path, "checkpoint")
        return tensors, origin, stored["model"].get("fps")
    tensors, _ = read_tensors(path)
    if any(n.startswith(("zica.", "audio_projector.")) or is_lora_name(n) for n in tensors):
        origin = Origin.assumed(path, audio_width=settings.get("audio_width"))
        return tensors, origin, own_fps
    if any(name.startswith("audio_projection.") for name in tensors):
        return *_from_official(path, model), own_fps
    raise AdapterFileError(
        f"{path} is no adapter: it has neither the names of the authors' file nor this program's, "
        f"but e.g. {min(tensors, default='none')!r}."
    )


def _from_folder(
    path: Path, settings: dict[str, Any]
) -> tuple[dict[str, Tensor], Origin, float | None]:
    adapter, mine = read_folder(path), AdapterSettings.from_model_settings(settings)
    theirs = adapter.settings.family
    if theirs != mine.family:
        raise AdapterFileError(f"{path} is an adapter of {theirs}, the model is of {mine.family}.")
    if is_music_folder(path):
        mine = replace(mine, lora=None)  # of which ``zica`` says nothing
    _check(mine.comparable(), adapter.settings.comparable(), path, "folder")
    assert adapter.origin is not None
    return adapter.tensors, adapter.origin, adapter.settings.fps


def _from_official(path: Path, model: MusicModel) -> tuple[dict[str, Tensor], Origin]:
    """The authors' file says only some settings; which blocks it may leave to the model."""
    if (family := model.kind.family) != Mochi.family:
        raise AdapterFileError(f"{path} is an adapter of Mochi, the model is of {family}.")
    if model.lora is None:
        raise AdapterFileError(f"{path} needs LoRA settings to agree; the model has no LoRA.")
    try:
        adapter = read_official_adapter(path, otherwise=model.layers, option="model.layers")
    except UserError as error:
        raise AdapterFileError(f"{path} is an adapter of another model: {error}") from error
    lora, heads = adapter.settings.lora, adapter.settings.zica.num_heads
    assert lora is not None and adapter.origin is not None
    mine = {
        "lora": {"rank": model.lora.rank, "alpha": float(model.lora.alpha)},
        "zica": {"num_heads": model.adapter.config.num_heads if model.adapter else None},
        "layers": model.layers,
    }
    theirs = {
        "lora": {"rank": lora.rank, "alpha": float(lora.alpha)},
        "zica": {"num_heads": heads},
        "layers": adapter.settings.layers,
    }
    _check(mine, theirs, path, "file")
    return adapter.tensors, adapter.origin


def _check(mine: dict[str, Any], theirs: dict[str, Any], path: Path, where: str) -> None:
    if different := differences(mine, theirs, where=where):
        raise AdapterFileError(f"{path} was trained with other settings ({'; '.join(different)}).")


def _first(names: Iterable[str]) -> list[str]:
    return sorted(names)[:1]
