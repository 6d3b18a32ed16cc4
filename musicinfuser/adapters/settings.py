"""An adapter by itself: its tensors and what they mean, without a backbone."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from musicinfuser.errors import UserError, looked_for
from musicinfuser.networks.audio_projector import AudioResampling
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.networks.lora import QKV_GROUPS, LoraSpec, is_lora_name
from musicinfuser.networks.music_mochi import MusicMochi
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZicaSpec

SETTINGS_KEY = "musicinfuser"
"""Where a checkpoint holds the settings of its model."""
FROZEN_KEY = "frozen"
"""Among those, the names of the frozen parts, as the fields of `CardFacts`."""
_CHECKPOINT_PREFIX = "model."


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

    @classmethod
    def from_model_settings(cls, settings: dict[str, Any]) -> Self:
        """From what a checkpoint holds under `SETTINGS_KEY`, ``model``."""
        backbone = settings["backbone"]
        return cls(
            width=backbone["num_attention_heads"] * backbone["attention_head_dim"],
            num_layers=backbone["num_layers"],
            layers=tuple(settings["layers"]),
            audio_width=settings["audio_width"],
            audio_resampling=settings["audio_resampling"],
            zica=ZicaSpec(**settings["zica"]),
            lora=LoraSpec(**settings["lora"]) if settings["lora"] else None,
        )

    def music_config(self) -> dict[str, Any]:
        """What `MusicAdapter` is built with, for ``zica/config.json``; how ZICA began is over."""
        form = asdict(self.zica)
        del form["init"]
        return {
            "width": self.width,
            "layers": list(self.layers),
            "backbone_layers": self.num_layers,
            "audio_width": self.audio_width,
            "audio_resampling": self.audio_resampling,
            **form,
        }


def comparable(settings: AdapterSettings) -> dict[str, Any]:
    """What must agree for an adapter to mean the same in another model.

    How ZICA began is over by then, whether A is shared the tensors themselves say, and without
    audio the rest of the settings about it is void.
    """
    found = asdict(settings)
    del found["zica"]["init"]
    if settings.lora is not None:
        del found["lora"]["share_qkv_a"]
    if not settings.layers:
        for name in ("zica", "audio_width", "audio_resampling"):
            del found[name]
    if settings.lora is None:
        del found["num_layers"]
    return found


@dataclass(frozen=True)
class Adapter:
    """Tensors by the names they have in `MusicMochi`, tied ones under each of their names."""

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


def adapter_of_model(
    model: MusicMochi, settings: dict[str, Any], origin: Origin | None = None
) -> Adapter:
    """A copy of a model's adapters on the CPU.

    Args:
        model: Anywhere; its backbone is not touched.
        settings: As a checkpoint holds them.
        origin: What it was trained with.
    """
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
        Its model's settings, and the adapters' tensors by the names of `MusicMochi`, tied ones
        once: the average where the run kept one, as that is what it sampled. And what it was
        trained with.

    Raises:
        AdapterFileError: Not there, or not such a checkpoint.
    """
    checkpoint = _load(path)
    stored, tensors = checkpoint[SETTINGS_KEY], checkpoint["state_dict"]
    settings = stored["model"]
    average = checkpoint.get("callbacks", {}).get("AdapterEMA", {}).get("average")
    if average is not None:
        tensors = average
    tensors = {name.removeprefix(_CHECKPOINT_PREFIX): t for name, t in tensors.items()}
    assumed = Origin.assumed(path, audio_width=settings.get("audio_width"))
    return settings, tensors, Origin.from_stored(stored) or assumed


def frozen_names(backbone: BackboneSpec, encoders: EncodersSpec) -> dict[str, str]:
    """Names of the frozen parts of a model, for the card of what is shared."""
    return {"base_model": backbone.pretrained or "random weights", "audio_encoder": encoders.audio}


def stored_settings(path: str | Path) -> dict[str, Any]:
    """All that a checkpoint holds under `SETTINGS_KEY`; errors as in `read_checkpoint`."""
    return dict(_load(path)[SETTINGS_KEY])


def _load(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise AdapterFileError(
            f"{path} does not exist{looked_for(path)}; give a checkpoint of a training."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint[SETTINGS_KEY]["model"], checkpoint["state_dict"]
    except Exception as error:  # what a foreign file raises depends on what it is
        raise AdapterFileError(
            f"{path} is no adapter: neither safetensors nor a checkpoint of this program."
        ) from error
    return checkpoint


def adapter_of_checkpoint(path: str | Path) -> Adapter:
    """The adapter in a checkpoint; errors as in `read_checkpoint`."""
    stored, tensors, origin = read_checkpoint(path)
    settings = AdapterSettings.from_model_settings(stored)
    if settings.lora is not None and settings.lora.share_qkv_a:
        tensors = with_shared_a(tensors)
    return Adapter(settings, tensors, origin)


def with_shared_a(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the A of k and v, which is that of q, under their own names."""
    added: dict[str, Tensor] = {}
    for first, *others in QKV_GROUPS:
        for name, tensor in tensors.items():
            if f".{first}.lora_A." in name:
                added |= {name.replace(f".{first}.", f".{o}."): tensor for o in others}
    return tensors | added
