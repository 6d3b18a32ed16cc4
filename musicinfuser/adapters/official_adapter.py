"""The authors' ``musicinfuser.safetensors`` as an adapter, and back; no backbone is needed."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser.adapters.official import official_lora_spec, write_official
from musicinfuser.adapters.official_keys import adapter_rules, from_official
from musicinfuser.adapters.settings import SETTINGS_KEY, Adapter, AdapterFileError, AdapterSettings
from musicinfuser.errors import UserError
from musicinfuser.networks.encoders import WAV2VEC_HUB_ID
from musicinfuser.networks.layer_selection import ADAPTABLE_LAYERS_OF_MOCHI
from musicinfuser.networks.origin import AudioIdentity, Origin
from musicinfuser.networks.zica import ZicaSpec

_AUTHORS_HEADS = 8
WAV2VEC_RATE_HZ = 50.0
"""Tokens per second."""
_BLOCK = re.compile(r"blocks\.(\d+)\.attn\.")
_ZICA = re.compile(r"audio_cross_attn_blocks\.(\d+)\.")
_DEPTH_OF_MOCHI = 48


def read_official_adapter(
    path: str | Path,
    *,
    layers: Sequence[int] | None = None,
    num_heads: int | None = None,
    audio_encoder: str = WAV2VEC_HUB_ID,
) -> Adapter:
    """The authors' file by the names of `MusicMochi`.

    Args:
        path: Their ``musicinfuser.safetensors``, of a transformer of any depth.
        layers: Blocks with audio, which their file does not hold; None takes what the file says
            where we wrote it, else the authors' 16 for 48 blocks.
        num_heads: Heads of ZICA, likewise; None takes the file's, else the authors' 8.
        audio_encoder: Hub id or folder of what it hears, where the file does not say it.

    Raises:
        AdapterFileError: Not such a file, or it cannot say which blocks; names file and key.
    """
    path = Path(path)
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterFileError(f"{path} cannot be read as safetensors ({error}).") from error
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
        layers = in_file
    if layers is None and depth == _DEPTH_OF_MOCHI:
        layers = ADAPTABLE_LAYERS_OF_MOCHI
    if layers is None or len(layers) != len(zica) or (in_file and list(layers) != in_file):
        raise AdapterFileError(
            f"{path} holds {len(zica)} audio blocks (audio_cross_attn_blocks.*) for a transformer "
            f"of {depth}; give their places with --layers"
            + (f", which are {in_file}." if in_file else f", {len(zica)} numbers.")
        )
    try:
        own_a = _has_own_a(metadata)
        lora, has_own_a = official_lora_spec(json.loads(metadata["kwargs"]), share_qkv_a=not own_a)
        converted = from_official(tensors, adapter_rules(depth, tuple(layers)), has_own_a=has_own_a)
    except (UserError, json.JSONDecodeError, KeyError) as error:
        raise AdapterFileError(f"{path}: {error}") from error
    width, audio_width = tensors["audio_projection.projection.0.weight"].shape
    heads = num_heads or json.loads(metadata.get("audio_heads", str(_AUTHORS_HEADS)))
    settings = AdapterSettings(
        width=width,
        num_layers=depth,
        layers=tuple(layers),
        audio_width=audio_width,
        audio_resampling="nearest",
        zica=ZicaSpec(num_heads=heads),
        lora=lora,
    )
    origin = official_origin(metadata, tensors, encoder=audio_encoder)
    return Adapter(settings, converted, origin)


def official_origin(
    metadata: Mapping[str, str], tensors: Mapping[str, Tensor], *, encoder: str = WAV2VEC_HUB_ID
) -> Origin:
    """What a file in the authors' format was trained with.

    Args:
        metadata: Its header; says it where we wrote the file. Else the file is the authors' own:
            they hear the last hidden state of wav2vec 2.0 (section 5.1; which one: their code).
        tensors: Its tensors, by their names.
        encoder: Hub id or folder of theirs.
    """
    stored = json.loads(metadata.get(SETTINGS_KEY, "{}"))
    theirs = AudioIdentity.of_encoder(encoder, None, features="encoder", layer=None)
    width = tensors["audio_projection.projection.0.weight"].shape[1]
    kind, rate_hz = theirs.kind or "wav2vec2", theirs.rate_hz or WAV2VEC_RATE_HZ
    theirs = replace(theirs, kind=kind, rate_hz=rate_hz, width=width)
    return Origin.from_stored(stored) or Origin(theirs)


def write_official_adapter(adapter: Adapter, path: str | Path) -> None:
    """Write an adapter in the authors' format, whole or not at all.

    Raises:
        AdapterFileError: It has what their format cannot hold; says what.
    """
    settings = adapter.settings
    zica, lora = settings.zica, settings.lora
    if lora is None or lora.streams != "both" or not settings.layers:
        raise AdapterFileError(
            "the authors' format needs ZICA and LoRA on both streams (lora.streams: both)."
        )
    only = {"form": "cross_attention", "bias": True, "scale": "head", "positions": "none"}
    for name, value in only.items():
        if getattr(zica, name) != value:
            raise AdapterFileError(
                f"the authors' format knows zica.{name} {value} only; this adapter has "
                f"{getattr(zica, name)}."
            )
    if settings.audio_resampling != "nearest":
        raise AdapterFileError(
            "the authors' format knows audio_resampling nearest only; this adapter has "
            f"{settings.audio_resampling}."
        )
    assert settings.num_layers is not None
    origin = adapter.origin.stored() if adapter.origin else {}
    if adapter.origin and not adapter.origin.audio.is_authors:
        warnings.warn(
            f"the authors' code hears the last hidden state of a wav2vec 2.0; {path} was trained "
            f"to hear {adapter.origin.audio}, which only this program looks up in it.",
            stacklevel=2,
        )
    write_official(
        adapter.tensors,
        path,
        lora=lora,
        depth=settings.num_layers,
        layers=settings.layers,
        num_heads=zica.num_heads,
        more_metadata={SETTINGS_KEY: json.dumps(origin)} if origin else {},
    )


def _has_own_a(metadata: dict[str, str]) -> bool:
    """Whether q, k and v hold an A each: then qkv has three times the rank of the output."""
    kwargs = json.loads(metadata["kwargs"])
    return kwargs["qkv_proj_lora_rank"] == 3 * kwargs["out_proj_lora_rank"]
