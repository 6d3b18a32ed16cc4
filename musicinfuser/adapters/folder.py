"""The folder an adapter is shared as: what diffusers, peft and this program read."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from musicinfuser.adapters.card import NOT_KNOWN, CardFacts, model_card
from musicinfuser.adapters.settings import SETTINGS_KEY, Adapter, AdapterFileError, AdapterSettings
from musicinfuser.atomic_files import atomic_folder, write_text
from musicinfuser.label_files import LabelError, read_json
from musicinfuser.networks.lora import ADAPTER_NAME, peft_options
from musicinfuser.networks.origin import Origin
from musicinfuser.safetensors_files import read_tensors, save_tensors

LORA_FILE = "pytorch_lora_weights.safetensors"
"""diffusers' own name: what `load_lora_weights` looks for."""
PEFT_FILE = "adapter_model.safetensors"
"""peft's own name, beside ``adapter_config.json``: the same matrices under peft's names."""
MUSIC_FOLDER, MUSIC_FILE = "zica", "diffusion_pytorch_model.safetensors"
CONFIG_FILE, CARD_FILE = "config.yaml", "README.md"
MUSIC_CLASS = "MusicAdapter"
_OURS, _DIFFUSERS, _PEFT = "backbone.", "transformer.", "base_model.model."
# Under which diffusers stores the settings of peft in the file's header.
_LORA_METADATA_KEY = "lora_adapter_metadata"


def write_folder(path: str | Path, adapter: Adapter, *, facts: CardFacts, config: str) -> None:
    """Write an adapter's folder, whole or not at all.

    Args:
        path: The folder; one that is there is replaced.
        adapter: What to share.
        facts: What the model card says beside it.
        config: The training's configuration, yaml.

    Raises:
        AdapterFileError: ``path`` holds something that is no such folder.
    """
    path = Path(path)
    if path.exists() and not is_adapter_folder(path) and (path.is_file() or any(path.iterdir())):
        raise AdapterFileError(
            f"{path} is there already and holds no adapter; give a new folder, or an adapter's "
            "folder to replace."
        )
    with atomic_folder(path) as folder:
        if adapter.settings.lora is not None:
            _write_lora(folder, adapter, base_model=facts.base_model)
        if adapter.settings.layers:
            config_of_music = {
                "_class_name": MUSIC_CLASS,
                **adapter.settings.music_config(),
                **adapter.stored_origin(),
            }
            text = json.dumps(config_of_music, indent=2)
            write_text(folder / MUSIC_FOLDER / "config.json", f"{text}\n")
            file = folder / MUSIC_FOLDER / MUSIC_FILE
            save_tensors(adapter.music(), file, metadata={"format": "pt"})
        write_text(folder / CONFIG_FILE, config)
        write_text(folder / CARD_FILE, model_card(adapter, facts))


def read_folder(path: str | Path) -> Adapter:
    """Read what `write_folder` wrote, or the ``zica`` in it alone.

    Raises:
        AdapterFileError: Not such a folder, or tensors missing or left over; names the file and the
            first of them.
        LabelError: Its config cannot be read.
        WeightsFileError: A file of weights cannot be read.
    """
    path = Path(path)
    if not (is_adapter_folder(path) or is_music_folder(path)):
        raise AdapterFileError(
            f"{path} holds no adapter: neither {LORA_FILE} nor {MUSIC_FOLDER}/config.json."
        )
    lora: dict[str, Tensor] = {}
    music: dict[str, Tensor] = {}
    stored: dict[str, Any] = {}
    if (path / LORA_FILE).is_file():
        tensors, metadata = read_tensors(path / LORA_FILE)
        if SETTINGS_KEY not in metadata:
            raise AdapterFileError(
                f"{path / LORA_FILE} has no settings of this program in its header (key "
                f"`{SETTINGS_KEY}`); it is a LoRA of another one."
            )
        stored = json.loads(metadata[SETTINGS_KEY])
        for name, tensor in tensors.items():
            bare = name.removeprefix(_DIFFUSERS).removesuffix(".weight")
            lora[f"{_OURS}{bare}.{ADAPTER_NAME}.weight"] = tensor
    folder = path if is_music_folder(path) else path / MUSIC_FOLDER
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        widths = {part["width"] for part in (stored, config) if "width" in part}
        if len(widths) > 1:
            raise AdapterFileError(
                f"{path}: {LORA_FILE} and {MUSIC_FOLDER} belong to transformers of different "
                f"widths, {min(widths)} and {max(widths)}."
            )
        stored |= {name: value for name, value in config.items() if name[:1] != "_"}
        music, _ = read_tensors(folder / MUSIC_FILE)
    try:
        settings = AdapterSettings.from_folder(stored)
        assumed = Origin.assumed(path, audio_width=settings.audio_width)
        origin = Origin.from_stored(stored) or assumed
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterFileError(f"{path} has settings that cannot be read ({error!r}).") from error
    foreign = [name for name in music if not name.startswith(("zica.", "audio_projector."))]
    layers = {int(name.split(".")[1]) for name in music if name.startswith("zica.")}
    if foreign or layers != set(settings.layers):
        wrong = f"has {foreign[0]}" if foreign else f"has layers {sorted(layers)}"
        raise AdapterFileError(
            f"{folder / MUSIC_FILE} {wrong}, but its config.json says ZICA of layers "
            f"{list(settings.layers)}."
        )
    return Adapter(settings, lora | music, origin)


def is_adapter_folder(path: str | Path) -> bool:
    """Whether a folder was written by `write_folder`, as far as names tell."""
    names = (LORA_FILE, f"{MUSIC_FOLDER}/config.json")
    return any(Path(path, name).is_file() for name in names)


def is_music_folder(path: str | Path) -> bool:
    """Whether a folder is the ``zica`` of such a folder, as far as its config tells."""
    with suppress(LabelError):
        return read_json(Path(path, "config.json")).get("_class_name") == MUSIC_CLASS
    return False


def _write_lora(folder: Path, adapter: Adapter, *, base_model: str) -> None:
    from peft import LoraConfig

    settings, lora = adapter.settings, adapter.settings.lora
    assert lora is not None
    plain = peft_options(lora, settings.kind)
    ours: dict[str, Any] = {"width": settings.width, "num_layers": settings.num_layers}
    ours |= {"lora": lora.stored()} | settings.kind.stored_family()
    metadata = {
        "format": "pt",
        _LORA_METADATA_KEY: json.dumps({f"{_DIFFUSERS}{k}": v for k, v in plain.items()}),
        SETTINGS_KEY: json.dumps(ours | adapter.stored_origin()),
    }
    for file, prefix, header in (
        (LORA_FILE, _DIFFUSERS, metadata),
        (PEFT_FILE, _PEFT, {"format": "pt"}),
    ):
        matrices = {
            name.replace(_OURS, prefix, 1).replace(f".{ADAPTER_NAME}.weight", ".weight"): t.clone()
            for name, t in adapter.lora().items()
        }
        save_tensors(matrices, folder / file, metadata=header)
    config = LoraConfig(
        **plain,
        base_model_name_or_path=None if base_model == NOT_KNOWN else base_model,
        inference_mode=True,
    )
    config.auto_mapping = {
        "base_model_class": settings.kind.model_class.__name__,
        "parent_library": settings.kind.model_class.__module__,
    }
    config.save_pretrained(str(folder))
