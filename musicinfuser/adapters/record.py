"""The configuration of a training, as far as it is that of the checkpoint beside it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from musicinfuser.adapters.settings import AdapterFileError, AdapterSettings
from musicinfuser.errors import UserError
from musicinfuser.networks.layer_selection import LayerStrategy, select_layers
from musicinfuser.setting_differences import differences, flatten

_NAMES = {"base_model": ("backbone", "pretrained"), "audio_encoder": ("encoders", "audio")}
_NONE: dict[str, Any] = {"lora": {"rank": "no LoRA"}, "layers": []}


def read_record(
    path: Path, settings: AdapterSettings, optimizer: dict[str, Any]
) -> tuple[str, dict[str, str]]:
    """The text of a training's ``config_fit.yaml``, and its ``base_model`` and ``audio_encoder``.

    It must agree with the settings of the adapter and of the optimizer in the checkpoint.

    Raises:
        AdapterFileError: It cannot be read, or is of another training; names what differs.
    """
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise AdapterFileError(
            f"{path} cannot be read as yaml ({reason}); mend it, or move it away to share the "
            "adapter without."
        ) from error
    if not isinstance(config, dict):
        raise AdapterFileError(f"{path} is no configuration of a training; name another --config.")
    options = _group(_group(config, "model"), "init_args")
    trained = asdict(settings) | {"optimizer": optimizer}
    if different := _differences(options, trained, settings.num_layers):
        raise AdapterFileError(
            f"{path} is of another training than the checkpoint ({'; '.join(different)}); give "
            "the right one with --config, or move it away to share the adapter without."
        )
    found = {name: _group(options, group).get(key) for name, (group, key) in _NAMES.items()}
    return text, {name: value for name, value in found.items() if isinstance(value, str)}


def _differences(
    options: Mapping[str, Any], trained: Mapping[str, Any], depth: int | None
) -> list[str]:
    """Of what a configuration says; what it leaves open agrees with anything."""
    names = {"layers", "lora", *(["optimizer"] if trained["optimizer"] else [])}
    if trained["layers"]:
        names |= {"zica", "audio_width", "audio_resampling"}
    mine = {name: options[name] or _NONE.get(name) for name in names & options.keys()}
    theirs = {name: trained[name] or _NONE.get(name) for name in mine}
    if isinstance(strategy := mine.get("layers"), dict):
        try:
            mine["layers"] = select_layers(LayerStrategy(**strategy), depth or 0)
        except (UserError, TypeError):  # its scores may no longer be there
            del mine["layers"]
    # What follows from other values of a configuration that is not resolved is open, as is an
    # empty group.
    said = {
        name: value
        for name, value in flatten(mine).items()
        if value != {} and not (isinstance(value, str) and "${" in value)
    }
    stored = flatten(theirs)
    return differences(said, {name: stored.get(name) for name in said})


def _group(tree: Any, name: str) -> dict[str, Any]:
    found = tree.get(name) if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}
