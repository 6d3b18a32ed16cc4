"""An adapter by itself: its tensors and what they mean, without a backbone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import yaml
from torch import Tensor

from musicinfuser.errors import UserError, looked_for
from musicinfuser.networks.audio_projector import AudioResampling
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.backbones import Backbone, family_named
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.networks.lora import LoraSpec, is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.setting_differences import with_defaults

SETTINGS_KEY = "musicinfuser"
"""Where a checkpoint holds the settings of its model."""
FROZEN_KEY = "frozen"
"""Among those, the names of the frozen parts, as the fields of `CardFacts`."""


class AdapterFileError(UserError):
    """A file or folder holds no adapter, or not the one that was asked for."""


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter's tensors cannot say by their shapes."""

    width: int
    """Of the transformer it belongs to."""
    num_layers: int | None
    """Blocks of that transformer; None where it has no LoRA and nobody said."""
    layers: tuple[int, ...]
    """Blocks followed by ZICA."""
    audio_width: int
    audio_resampling: AudioResampling
    zica: ZicaSpec
    lora: LoraSpec | None
    audio_layers: tuple[tuple[int, ...], ...] | None = None
    """Of features with hidden states to mix: number and width of each group of channels."""
    family: str = "mochi"
    """Of the transformer; that of Mochi is as wide as one of Wan's."""
    fps: float | None = None
    """Frames per second of its videos; None: the family's."""

    @classmethod
    def from_model_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From what a checkpoint holds under `SETTINGS_KEY`, ``model``."""
        backbone = settings["backbone"]
        width = backbone["num_attention_heads"] * backbone["attention_head_dim"]
        depth, zica = backbone["num_layers"], ZicaSpec(**settings["zica"])
        return replace(
            cls.from_folder({**settings, "width": width, "num_layers": depth}),
            zica=zica,
            family=backbone.get("family", cls.family),
        )

    @classmethod
    def from_folder(cls, stored: Mapping[str, Any]) -> Self:
        """From the settings in an exported folder; what is about audio may be missing."""
        return cls(
            width=stored["width"],
            num_layers=stored.get("backbone_layers") or stored.get("num_layers"),
            layers=tuple(stored.get("layers", ())),
            audio_width=stored.get("audio_width", 0),
            audio_resampling=stored.get("audio_resampling", "nearest"),
            zica=ZicaSpec.from_stored(stored),
            lora=LoraSpec(**stored["lora"]) if stored.get("lora") else None,
            audio_layers=tuple(map(tuple, stored.get("audio_layers") or ())) or None,
            family=stored.get("family", cls.family),
            fps=stored.get("fps"),
        )

    def music_config(self) -> dict[str, Any]:
        """What `MusicAdapter` is built with, for ``zica/config.json``."""
        return {
            "width": self.width,
            "layers": list(self.layers),
            "backbone_layers": self.num_layers,
            "audio_width": self.audio_width,
            "audio_resampling": self.audio_resampling,
            **self._stored_layers(),
            **self.zica.stored(),
            **self.kind.stored_family(),
            **self._stored_fps(),
        }

    @property
    def kind(self) -> type[Backbone]:
        """What is particular about the transformer's family."""
        return family_named(self.family)

    def as_yaml(self) -> str:
        """For who has no configuration of the training."""
        settings = asdict(self) | {"layers": list(self.layers)}
        named = ("audio_layers", "family", "fps")
        settings = {name: value for name, value in settings.items() if name not in named}
        settings |= self._stored_layers() | self.kind.stored_family() | self._stored_fps()
        return yaml.safe_dump({"adapter": settings}, sort_keys=False)

    def comparable(self) -> dict[str, Any]:
        """What must agree for an adapter to mean the same in another model.

        Whether A is shared the tensors themselves say, and without audio the rest of the settings
        about it is void.
        """
        found = asdict(self) | {"zica": self.zica.stored()}
        del found["fps"]
        found["lora"] = self.lora and self.lora.stored()
        if self.lora is None:
            del found["num_layers"]
        else:
            del found["lora"]["share_qkv_a"]
        about_audio = ("zica", "audio_width", "audio_resampling", "audio_layers")
        for name in () if self.layers else about_audio:
            del found[name]
        return found

    def _stored_fps(self) -> dict[str, Any]:
        return {} if self.fps is None else {"fps": self.fps}

    def _stored_layers(self) -> dict[str, Any]:
        """Nothing where none are mixed, as in older files."""
        return {"audio_layers": [list(g) for g in self.audio_layers]} if self.audio_layers else {}


@dataclass(frozen=True)
class Adapter:
    """Tensors by the names they have in `MusicModel`, tied ones under each of their names."""

    settings: AdapterSettings
    tensors: dict[str, Tensor]
    origin: Origin | None = None
    """What it was trained with; None where nobody said."""

    def lora(self) -> dict[str, Tensor]:
        """The LoRA matrices."""
        return {name: tensor for name, tensor in self.tensors.items() if is_lora_name(name)}

    def music(self) -> dict[str, Tensor]:
        """ZICA and the audio projector."""
        return {name: tensor for name, tensor in self.tensors.items() if not is_lora_name(name)}

    def stored_origin(self) -> dict[str, Any]:
        """What it was trained with, under its key; nothing where nobody said."""
        return self.origin.stored() if self.origin else {}


def adapter_of_model(
    model: MusicModel, settings: dict[str, Any], origin: Origin | None = None
) -> Adapter:
    """A copy of a model's adapters on the CPU; ``settings`` as a checkpoint holds them."""
    tensors = {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }
    return Adapter(AdapterSettings.from_model_settings(settings), tensors, origin)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], Origin]:
    """What a training's checkpoint holds of its model.

    Args:
        path: The checkpoint; memory-mapped, only what is used is read.

    Returns:
        All that it holds under `SETTINGS_KEY`, with the defaults of ZICA's and LoRA's options that
        are younger than it; the adapters' tensors by the names of `MusicModel`, tied ones once: the
        average where the run kept one, as that is what it sampled; and what it was trained with.

    Raises:
        AdapterFileError: Not there, or not such a checkpoint.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else f"does not exist{looked_for(path)}"
        raise AdapterFileError(f"{path} {what}; give a checkpoint file of a training.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        stored, tensors = checkpoint[SETTINGS_KEY], checkpoint["state_dict"]
        settings = stored["model"]
    except Exception as error:  # what a foreign file raises depends on what it is
        raise AdapterFileError(f"{path} is no checkpoint of a training of this program.") from error
    average = checkpoint.get("callbacks", {}).get("AdapterEMA", {}).get("average")
    tensors = tensors if average is None else average
    tensors = {name.removeprefix("model."): t for name, t in tensors.items()}
    assumed = Origin.assumed(path, audio_width=settings.get("audio_width"))
    stored = {**stored, "model": with_younger_options(settings)}
    return stored, tensors, Origin.from_stored(stored) or assumed


def with_younger_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model with the defaults of ZICA's and LoRA's options that they lack."""
    kinds = {"zica": ZicaSpec, "lora": LoraSpec}
    younger = {
        name: with_defaults(settings[name], kind)
        for name, kind in kinds.items()
        if settings.get(name) is not None
    }
    return {**settings, **younger}


def frozen_names(backbone: BackboneSpec, encoders: EncodersSpec) -> dict[str, str]:
    """Names of the frozen parts of a model, for the card of what is shared."""
    return {"base_model": backbone.pretrained or "random weights", "audio_encoder": encoders.audio}


def adapter_of_checkpoint(path: str | Path) -> tuple[Adapter, dict[str, Any]]:
    """The adapter in a checkpoint, and its settings; errors as in `read_checkpoint`."""
    stored, tensors, origin = read_checkpoint(path)
    settings = AdapterSettings.from_model_settings(stored["model"])
    if settings.lora is not None and settings.lora.share_qkv_a:
        # The A of k and v is that of q; here it has their names too.
        for first, *others in settings.kind.lora_shared_a:
            for name in [name for name in tensors if f".{first}.lora_A." in name]:
                for other in others:
                    tensors[name.replace(f".{first}.", f".{other}.")] = tensors[name]
    return Adapter(settings, tensors, origin), stored
