"""The model that a profile's user gets, built from the shipped configs on the meta device.

A profile is ``configs/base.yaml`` with overlays such as ``configs/profiles/40gb.yaml``, or
``configs/wan_1b.yaml`` for another backbone. The files
are laid over each other here by plain YAML, so that a machine needs neither Lightning nor a parser
of configs to measure; a test holds that the options are those the command line gets.
"""

import inspect
import json
import tempfile
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
import yaml
from torch import nn

from musicinfuser.errors import UserError
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones import Backbone, Mochi, family_named
from musicinfuser.networks.backbones.mochi import MOCHI_CONFIG
from musicinfuser.networks.layer_selection import DEPTH_OF_MOCHI, LayerStrategy
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.setting_differences import laid_over

CONFIGS = Path(__file__).parents[1] / "configs"
# The sizes of the small parts.
SMALL_CONFIG = MOCHI_CONFIG | {
    "num_attention_heads": 2, "attention_head_dim": 64, "pooled_projection_dim": 96,
    "text_embed_dim": 64, "time_embed_dim": 64,
}  # fmt: skip
SMALL_AUDIO_WIDTH = 96
SMALL_WAN: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 64, "text_dim": 64, "freq_dim": 64,
    "ffn_dim": 256,
}  # fmt: skip


def read_profile(profile: str = "base") -> dict[str, Any]:
    """The recipe with overlays on top, by stems of files joined by ``+``.

    They are in ``configs/profiles`` or ``configs``. ``base`` is the recipe itself; `UserError` if
    there is no such profile.
    """
    config = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    for name in profile.split("+"):
        if name == "base":
            continue
        profiles = CONFIGS / "profiles"
        path = next((p for p in (profiles, CONFIGS) if (p / f"{name}.yaml").is_file()), profiles)
        path /= f"{name}.yaml"
        if not path.is_file():
            known = sorted(found.stem for found in path.parent.glob("*.yaml"))
            raise UserError(f"{name} is no profile; there are {', '.join(known) or 'none'}.")
        config = laid_over(config, yaml.safe_load(path.read_text()))
    return config


def model_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `MusicModel` is built with, of ``model.init_args``."""
    given = config["model"]["init_args"]
    hints = get_type_hints(MusicModel.__init__)
    known = inspect.signature(MusicModel.__init__).parameters
    options = {name: value for name, value in given.items() if name in known}
    # Built by whoever asks; and interpolated from the run's seed, on which nothing here depends.
    for name in ("backbone", "seed"):
        options.pop(name, None)
    return {name: _as_spec(value, hints[name]) for name, value in options.items()}


def build_on_meta(
    config: Mapping[str, Any], *, num_layers: int | None = None, size: str = "full", **changes: Any
) -> MusicModel:
    """The adapted model without weights.

    Args:
        config: As `read_profile` gives it.
        num_layers: Blocks; by default all. With fewer, a third of them hear music, evenly spread
            unless the config says how many.
        size: ``full`` or ``small``.
        changes: Options of `MusicModel` and `MemorySettings` that replace the profile's.
    """
    with torch.device("meta"):
        return adapted(backbone(config, num_layers=num_layers, size=size), config, **changes)


def backbone(
    config: Mapping[str, Any], *, num_layers: int | None = None, size: str = "full"
) -> Any:
    """The frozen transformer, without weights under ``torch.device("meta")``, else random ones.

    Arguments as of `build_on_meta`.
    """
    kind, given = family_of(config), config["model"]["init_args"]["backbone"]
    architecture = dict(kind.published[given["pretrained"]])
    if size == "small":
        architecture = SMALL_CONFIG if kind is Mochi else architecture | SMALL_WAN
    if num_layers is not None:
        architecture = architecture | {"num_layers": num_layers}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(architecture))
        spec = BackboneSpec(
            config=str(path), dtype=given["dtype"], family=kind.family,
            quantize=given.get("quantize"),
        )  # fmt: skip
        return build_backbone(spec)


def family_of(config: Mapping[str, Any]) -> type[Backbone]:
    """The family of a profile's backbone."""
    return family_named(config["model"]["init_args"]["backbone"].get("family", Mochi.family))


def adapted(base: Any, config: Mapping[str, Any], **changes: Any) -> MusicModel:
    """A backbone of any size with the profile's adapters and ways to run."""
    ways = {name: changes.pop(name) for name in changes.keys() & MemorySettings.__annotations__}
    options = model_options(config) | changes
    options["memory"] = replace(options["memory"], **ways)
    depth, width = base.config.num_layers, base.config[family_of(config).text_width_key]
    is_listed = getattr(options["layers"], "strategy", None) == "adaptability"
    if depth != DEPTH_OF_MOCHI and "layers" not in changes and is_listed:
        options["layers"] = LayerStrategy("even", max(depth // 3, 1))
    if width != MOCHI_CONFIG["text_embed_dim"]:
        options["audio_width"] = SMALL_AUDIO_WIDTH
    return MusicModel(base, **options)


def _as_spec(value: Any, hint: Any) -> Any:
    """A mapping as the dataclass that the hint names."""
    specs = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type)]
    specs = [kind for kind in specs if is_dataclass(kind)]
    return specs[0](**value) if isinstance(value, Mapping) and specs else value


def audio_width(model: MusicModel) -> int:
    """Channels of the audio features that a model takes."""
    assert model.audio_projector is not None
    first = model.audio_projector.projection[0]
    assert isinstance(first, nn.Linear)
    return first.in_features
